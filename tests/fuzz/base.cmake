moe_fuzz(fuzz_options LIBS moe_base)
moe_fuzz(fuzz_address LIBS moe_base)
