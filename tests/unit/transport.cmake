moe_test(test_transport_loopback LIBS moe_transport LABELS unit)
moe_test(test_transport_faulty LIBS moe_transport LABELS unit)
moe_test(test_transport_frames LIBS moe_transport LABELS unit)
