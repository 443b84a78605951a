foreach(noun status log clock options guess address resolver buf text queue ring waiter threads cores pages memory resident json json_python file)
  moe_test(test_base_${noun} LIBS moe_base LABELS unit)
endforeach()
moe_test(test_base_support LIBS moe_base LABELS unit)
# Of the tree, not of a program: includes, paths in the documents, and that these two checks can fail.
foreach(check check_layers check_docs test_checks)
  add_test(NAME ${check} COMMAND ${PROJECT_SOURCE_DIR}/tests/${check}.sh)
  set_tests_properties(${check} PROPERTIES LABELS unit)
endforeach()
