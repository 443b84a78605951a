if(NOT TARGET conclave-coordinator OR NOT TARGET api_python_descriptors)
  return()
endif()
add_test(NAME service
  COMMAND /usr/bin/python3 ${CMAKE_CURRENT_SOURCE_DIR}/service.py $<TARGET_FILE:conclave-coordinator>
    ${PROJECT_SOURCE_DIR}/tools/make_checkpoint.py ${CMAKE_CURRENT_BINARY_DIR}/api_python/api.bin)
set_tests_properties(service PROPERTIES LABELS integration TIMEOUT 600 SKIP_RETURN_CODE 77)
