moe_test(test_transport_ucx LIBS moe_transport_ucx LABELS unit)
