moe_test(test_proto_wire LIBS moe_wire LABELS unit)
moe_test(test_proto_proof LIBS moe_wire LABELS unit)
moe_test(test_proto_link LIBS moe_wire LABELS unit)
