moe_fuzz(fuzz_wire LIBS moe_wire)
