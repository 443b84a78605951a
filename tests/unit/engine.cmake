if(NOT TARGET moe_engine OR NOT TARGET moe_embedded)
  return()
endif()
moe_library(moe_test_engine SOURCES ${PROJECT_SOURCE_DIR}/tests/support/engine_fixture.c
  PUBLIC moe_test_model moe_engine moe_embedded)
moe_test(test_engine_identity LIBS moe_test_engine LABELS unit TIMEOUT 1800 COST 600)
foreach(kind mixtral qwen3_moe moduleformer moduleformer-kv moe_plus_plus)
  add_test(NAME test_engine_identity_${kind} COMMAND test_engine_identity ${kind} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(test_engine_identity_${kind} PROPERTIES LABELS "unit;family" TIMEOUT 1800)
endforeach()
moe_test(test_engine_requests LIBS moe_test_engine LABELS unit)
moe_test(test_engine_background LIBS moe_test_engine LABELS unit)
moe_test(test_engine_wakeups LIBS moe_test_engine LABELS unit)
moe_test(test_engine_waiting LIBS moe_test_engine LABELS unit)
moe_test(test_engine_change LIBS moe_test_engine LABELS unit)
moe_test(test_embedded_change LIBS moe_test_engine LABELS unit)
add_test(NAME test_embedded_change_attention COMMAND test_embedded_change moduleformer WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}) # whose packs have attention experts
set_tests_properties(test_embedded_change_attention PROPERTIES LABELS "unit;family" TIMEOUT 300)
moe_test(test_engine_threads LIBS moe_test_engine LABELS unit)
if(TARGET moe_pool AND TARGET moe_node_program)
  moe_test(test_coordinator_pool SOURCES test_coordinator_pool.c ../sim/cluster_world.c ../sim/obstacle.c
    LIBS moe_test_engine moe_pool moe_node_program moe_wire LABELS unit ENVIRONMENT "UCX_MEM_EVENTS=n") # docs/transport.md
endif()
