moe_test(test_compute_math LIBS moe_compute m LABELS unit)
moe_test(test_compute_products LIBS moe_compute m LABELS unit)
moe_test(test_compute_cpu LIBS moe_compute m LABELS unit)
moe_test(test_compute_attention LIBS moe_compute m LABELS unit)
