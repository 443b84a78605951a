moe_test(test_template_vectors LIBS moe_template PkgConfig::JANSSON LABELS unit)
foreach(part refusals limits origins)
  moe_test(test_template_${part} LIBS moe_template PkgConfig::JANSSON Threads::Threads LABELS unit)
endforeach()
