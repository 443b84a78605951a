if(NOT TARGET moe_engine OR NOT TARGET moe_embedded)
  return()
endif()
moe_library(moe_test_engine SOURCES ${PROJECT_SOURCE_DIR}/tests/support/engine_fixture.c
  PUBLIC moe_test_model moe_engine moe_embedded)
moe_test(test_engine_identity LIBS moe_test_engine LABELS unit TIMEOUT 900)
moe_test(test_engine_requests LIBS moe_test_engine LABELS unit)
moe_test(test_engine_threads LIBS moe_test_engine LABELS unit)
