moe_test(test_cli_message LIBS moe_cli LABELS unit)
moe_test(test_cli_run LIBS moe_cli LABELS unit)
moe_test(test_cli_convert LIBS moe_cli LABELS unit)

if(MOE_SANITIZE STREQUAL "thread") # it starts none
  return()
endif()
moe_program(cli_json SOURCES cli_json.c LIBS moe_cli)
add_test(NAME test_cli_json COMMAND /usr/bin/python3 ${CMAKE_CURRENT_LIST_DIR}/cli_json.py $<TARGET_FILE:cli_json> ${PROJECT_SOURCE_DIR}/proto)
set_tests_properties(test_cli_json PROPERTIES LABELS unit TIMEOUT 300)
