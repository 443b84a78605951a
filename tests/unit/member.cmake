moe_test(test_member_fetch SOURCES test_member_fetch.c ../sim/world.c LIBS moe_exchange moe_node_program moe_fetch LABELS unit)
moe_test(test_member_pack_dir LIBS moe_member LABELS unit)
