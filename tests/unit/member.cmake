moe_test(test_member_fetch LIBS moe_test_world moe_node_program moe_fetch LABELS unit)
moe_test(test_member_pack_dir LIBS moe_member LABELS unit)
moe_test(test_member_check LIBS moe_member LABELS unit)
