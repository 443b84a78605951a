moe_test(test_catalogue LIBS moe_catalogue LABELS unit)
