moe_fuzz(fuzz_safetensors LIBS moe_checkpoint)
moe_fuzz(fuzz_checkpoint_index LIBS moe_checkpoint)
moe_fuzz(fuzz_pickle LIBS moe_checkpoint)
moe_fuzz(fuzz_zip LIBS moe_checkpoint)
