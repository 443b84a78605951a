moe_fuzz(fuzz_wire LIBS moe_wire)
moe_fuzz(fuzz_link LIBS moe_wire)
