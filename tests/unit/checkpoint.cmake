moe_test(test_checkpoint_safetensors LIBS moe_checkpoint LABELS unit)
moe_test(test_checkpoint_index LIBS moe_checkpoint LABELS unit)
moe_test(test_checkpoint_files LIBS moe_checkpoint LABELS unit)
moe_test(test_checkpoint_manifest LIBS moe_checkpoint LABELS unit)
