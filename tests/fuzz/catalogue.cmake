moe_fuzz(fuzz_catalogue LIBS moe_catalogue)
