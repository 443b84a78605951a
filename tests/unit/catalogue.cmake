moe_test(test_catalogue LIBS moe_catalogue LABELS unit)
moe_test(test_catalogue_shadow LIBS moe_catalogue LABELS unit)
