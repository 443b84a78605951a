moe_test(test_compute_math LIBS moe_compute m LABELS unit)
moe_test(test_compute_products LIBS moe_compute m LABELS unit)
moe_test(test_compute_cpu LIBS moe_compute m LABELS unit)
moe_test(test_compute_attention LIBS moe_compute m LABELS unit)
moe_test(test_compute_stick LIBS moe_compute m LABELS unit)
moe_test(test_compute_families LIBS moe_compute m LABELS unit)

# Of what is shipped: a debug build spills everything, and under sanitizers the tiles stay loops.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND CMAKE_C_COMPILER_ID STREQUAL "GNU" AND MOE_SANITIZE STREQUAL ""
   AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  add_test(NAME check_spills COMMAND ${PROJECT_SOURCE_DIR}/tests/check_spills.sh
    "$<FILTER:$<TARGET_OBJECTS:moe_compute>,INCLUDE,avx.*_(product|pair)\\.c\\.o$>" COMMAND_EXPAND_LISTS)
  set_tests_properties(check_spills PROPERTIES LABELS unit SKIP_RETURN_CODE 77)
endif()
