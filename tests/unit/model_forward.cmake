moe_test(test_model_forward LIBS moe_test_model LABELS unit)
moe_test(test_model_gates LIBS moe_test_model LABELS unit)
