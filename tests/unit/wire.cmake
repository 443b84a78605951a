moe_test(test_proto_wire LIBS moe_wire LABELS unit)
