moe_test(test_model_forward LIBS moe_test_model LABELS unit)
