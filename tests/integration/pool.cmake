# Its own label: the one test of several processes that ThreadSanitizer watches, too (tools/test.sh). UCX: docs/transport.md.
if(NOT TARGET conclave-coordinator OR NOT TARGET conclave-node OR NOT TARGET conclave)
  return()
endif()
add_test(NAME pool
  COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/pool.py $<TARGET_FILE:conclave> $<TARGET_FILE:conclave-coordinator>
    $<TARGET_FILE:conclave-node> ${PROJECT_SOURCE_DIR}/tools/make_checkpoint.py ${PROJECT_SOURCE_DIR}/tests/vectors)
set_tests_properties(pool PROPERTIES LABELS cluster TIMEOUT 1800 COST 900 SKIP_RETURN_CODE 77 ENVIRONMENT "UCX_MEM_EVENTS=n")
