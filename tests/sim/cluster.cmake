if(NOT TARGET moe_test_engine OR NOT TARGET moe_pool OR NOT TARGET moe_node_program)
  return()
endif()
moe_test(sim_cluster SOURCES sim_cluster.c cluster_world.c LIBS moe_test_engine moe_pool moe_node_program LABELS sim)
