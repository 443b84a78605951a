moe_fuzz(fuzz_config LIBS moe_model)
