moe_test(test_outbox LIBS moe_outbox LABELS unit)
