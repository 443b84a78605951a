moe_fuzz(fuzz_template LIBS moe_template PkgConfig::JANSSON)
