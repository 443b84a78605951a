# The cluster of processes. ThreadSanitizer, which takes ten times as long, watches those of its tests in which most threads
# meet. UCX: docs/transport.md.
if(NOT TARGET conclave-coordinator OR NOT TARGET conclave-node OR NOT TARGET conclave)
  return()
endif()
set(pool /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/pool.py $<TARGET_FILE:conclave> $<TARGET_FILE:conclave-coordinator>
  $<TARGET_FILE:conclave-node> ${PROJECT_SOURCE_DIR}/tools/make_checkpoint.py ${PROJECT_SOURCE_DIR}/tests/vectors)
if(MOE_SANITIZE STREQUAL "thread")
  add_test(NAME pool_threads COMMAND ${pool} Pool.test_two_nodes_with_replicas_answer_as_one_process Pool.test_two_coordinators_share_the_nodes
    Pool.test_a_node_may_die_while_its_replicas_go_on Pool.test_etcd_may_be_restarted_while_serving
    Pool.test_nodes_work_for_those_alone_who_know_the_secret)
  set_tests_properties(pool_threads PROPERTIES LABELS integration TIMEOUT 1800 COST 900 SKIP_RETURN_CODE 77 ENVIRONMENT "UCX_MEM_EVENTS=n")
  return()
endif()
set(shares 3) # they wait more than they compute, for leases to end above all
foreach(share RANGE 1 ${shares})
  add_test(NAME pool_${share} COMMAND ${pool} --share ${share}/${shares})
  set_tests_properties(pool_${share} PROPERTIES LABELS integration TIMEOUT 1800 COST 900 SKIP_RETURN_CODE 77 ENVIRONMENT "UCX_MEM_EVENTS=n")
endforeach()
add_test(NAME packs_cluster COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/packs_cluster.py $<TARGET_FILE:conclave>
  $<TARGET_FILE:conclave-coordinator> $<TARGET_FILE:conclave-node> ${PROJECT_SOURCE_DIR}/tests/vectors
  ${CMAKE_CURRENT_BINARY_DIR}/api_python/api.bin)
set_tests_properties(packs_cluster PROPERTIES LABELS integration TIMEOUT 300 SKIP_RETURN_CODE 77 ENVIRONMENT "UCX_MEM_EVENTS=n")
if(NOT MOE_SANITIZE) # they are about figures, and about the tool: what runs in them is in packs_cluster
  add_test(NAME packs_nodes COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/packs_nodes.py $<TARGET_FILE:conclave>
    $<TARGET_FILE:conclave-coordinator> $<TARGET_FILE:conclave-node> olmoe-gqa molm-mlp-attention moe++-2layer-double) # all: make check-peers
  set_tests_properties(packs_nodes PROPERTIES LABELS integration TIMEOUT 600 SKIP_RETURN_CODE 77 ENVIRONMENT "UCX_MEM_EVENTS=n")
  add_test(NAME packs_demo COMMAND /usr/bin/python3 -B ${PROJECT_SOURCE_DIR}/tools/packs_demo.py --short --bin $<TARGET_FILE_DIR:conclave>)
  add_test(NAME models COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/models.py $<TARGET_FILE:conclave-coordinator> ${PROJECT_SOURCE_DIR}/models)
  set_tests_properties(models PROPERTIES LABELS integration TIMEOUT 300)
  add_test(NAME knowledge_demo COMMAND /usr/bin/python3 -B ${PROJECT_SOURCE_DIR}/tools/knowledge_demo.py --random --bytes 300 --tokens 8
    --out ${CMAKE_CURRENT_BINARY_DIR}/knowledge.svg --bin $<TARGET_FILE_DIR:conclave>)
  set_tests_properties(packs_demo knowledge_demo PROPERTIES LABELS integration TIMEOUT 300 SKIP_RETURN_CODE 77 ENVIRONMENT "UCX_MEM_EVENTS=n")
endif()
add_test(NAME packs_shadow COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/packs_shadow.py $<TARGET_FILE:conclave>
  $<TARGET_FILE:conclave-coordinator> $<TARGET_FILE:conclave-node> ${PROJECT_SOURCE_DIR}/tests/vectors)
set_tests_properties(packs_shadow PROPERTIES LABELS integration TIMEOUT 300 ENVIRONMENT "UCX_MEM_EVENTS=n")
