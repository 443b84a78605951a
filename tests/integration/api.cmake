# A foreign client (Debian's python3-grpcio) against the real API over the fake engine.
moe_program(api_server SOURCES ${CMAKE_CURRENT_LIST_DIR}/api_server.c LIBS moe_api moe_fake_engine)
set(api_python ${CMAKE_CURRENT_BINARY_DIR}/api_python)
file(MAKE_DIRECTORY ${api_python})
set(api_published "")
foreach(proto conclave/v1/inference conclave/v1/admin grpc/health/v1/health grpc/reflection/v1/reflection grpc/reflection/v1alpha/reflection)
  list(APPEND api_published ${PROJECT_SOURCE_DIR}/proto/${proto}.proto)
endforeach()
# One descriptor set instead of generated modules: a package named grpc would hide the library's.
add_custom_command(
  OUTPUT ${api_python}/api.bin
  COMMAND ${PROTOC} -I${PROJECT_SOURCE_DIR}/proto --include_imports --descriptor_set_out=${api_python}/api.bin ${api_published}
  DEPENDS ${api_published}
  VERBATIM)
add_custom_target(api_python_descriptors ALL DEPENDS ${api_python}/api.bin)
add_dependencies(api_server api_python_descriptors)
if(MOE_SANITIZE)
  set(api_quick --quick)
endif()
add_test(NAME integration_api
  COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/api_test.py --server $<TARGET_FILE:api_server> --descriptors ${api_python}/api.bin ${api_quick}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(integration_api PROPERTIES LABELS integration TIMEOUT 600 SKIP_RETURN_CODE 77
  ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
