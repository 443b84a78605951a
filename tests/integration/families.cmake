if(NOT TARGET conclave-coordinator OR NOT TARGET conclave-node OR NOT TARGET conclave)
  return()
endif()
add_test(NAME families
  COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/families.py $<TARGET_FILE:conclave> $<TARGET_FILE:conclave-coordinator>
    $<TARGET_FILE:conclave-node> ${PROJECT_SOURCE_DIR}/tools/make_checkpoint.py ${PROJECT_SOURCE_DIR}/tests/vectors)
set_tests_properties(families PROPERTIES LABELS integration TIMEOUT 900 COST 400 SKIP_RETURN_CODE 77 ENVIRONMENT "UCX_MEM_EVENTS=n")
