moe_test(test_compute_math LIBS moe_compute m LABELS unit)
moe_test(test_compute_products LIBS moe_compute m LABELS unit)
moe_test(test_compute_cpu LIBS moe_compute m LABELS unit)
moe_test(test_compute_attention LIBS moe_compute m LABELS unit)
moe_test(test_compute_stick LIBS moe_compute m LABELS unit)
moe_test(test_compute_families LIBS moe_compute m LABELS unit)

moe_test(test_compute_device LIBS moe_compute LABELS unit)
if(TARGET test_compute_device)
  target_compile_definitions(test_compute_device PRIVATE MODULES="${CMAKE_CURRENT_BINARY_DIR}/modules")
  foreach(fault symbol nothing abi sizes kind half gpu old refuses op none)
    string(TOUPPER ${fault} upper)
    add_library(module_${fault} MODULE modules/module.c)
    target_include_directories(module_${fault} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(module_${fault} PRIVATE FAULT_${upper})
    target_compile_options(module_${fault} PRIVATE -Wno-unused-parameter -Wno-unused-function)
    target_link_libraries(module_${fault} PRIVATE moe_flags)
    set_target_properties(module_${fault} PROPERTIES PREFIX "" OUTPUT_NAME ${fault} LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/modules)
    add_dependencies(test_compute_device module_${fault})
  endforeach()
endif()

# Of what is shipped: a debug build spills everything, and under sanitizers the tiles stay loops.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND CMAKE_C_COMPILER_ID STREQUAL "GNU" AND MOE_SANITIZE STREQUAL ""
   AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  add_test(NAME check_spills COMMAND ${PROJECT_SOURCE_DIR}/tests/check_spills.sh
    "$<FILTER:$<TARGET_OBJECTS:moe_compute>,INCLUDE,avx.*_(product|pair)\\.c\\.o$>" COMMAND_EXPAND_LISTS)
  set_tests_properties(check_spills PROPERTIES LABELS unit SKIP_RETURN_CODE 77)
endif()
