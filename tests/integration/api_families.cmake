if(NOT TARGET conclave-coordinator OR NOT TARGET conclave)
  return()
endif()
add_test(NAME api_families
  COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/api_families.py $<TARGET_FILE:conclave> $<TARGET_FILE:conclave-coordinator>
    ${PROJECT_SOURCE_DIR}/tools/make_checkpoint.py)
set_tests_properties(api_families PROPERTIES LABELS integration TIMEOUT 300 SKIP_RETURN_CODE 77)
