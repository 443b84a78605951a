if(NOT TARGET moe_test_engine OR NOT TARGET moe_pool OR NOT TARGET moe_node_program)
  return()
endif()
# UCX: docs/transport.md.
moe_test(sim_cluster SOURCES sim_cluster.c seeds.c LIBS moe_test_cluster_world LABELS sim TIMEOUT 1800 COST 800 ENVIRONMENT "UCX_MEM_EVENTS=n")
moe_test(sim_losses LIBS moe_test_cluster_world LABELS sim ENVIRONMENT "UCX_MEM_EVENTS=n")
moe_test(pool_holds LIBS moe_test_cluster_world LABELS sim ENVIRONMENT "UCX_MEM_EVENTS=n")
if(TARGET moe_follower)
  moe_test(sim_changes SOURCES sim_changes.c seeds.c
    LIBS moe_test_cluster_world moe_follower LABELS sim ENVIRONMENT "UCX_MEM_EVENTS=n")
endif()
