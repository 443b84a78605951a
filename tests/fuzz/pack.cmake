moe_fuzz(fuzz_pack LIBS moe_pack)
