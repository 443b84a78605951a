moe_fuzz(fuzz_options LIBS moe_base)
