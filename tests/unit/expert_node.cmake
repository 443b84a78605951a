moe_test(test_expert_node_alive SOURCES test_expert_node_alive.c ../sim/world.c LIBS moe_exchange moe_node_program LABELS unit)
moe_test(test_expert_node_inbox SOURCES test_expert_node_inbox.c ../sim/world.c LIBS moe_exchange moe_expert_node moe_wire LABELS unit)
moe_test(test_expert_node_assignment SOURCES test_expert_node_assignment.c ../sim/world.c LIBS moe_exchange moe_node_program LABELS unit)
moe_test(test_expert_node_shard SOURCES test_expert_node_shard.c ../sim/world.c LIBS moe_exchange moe_expert_node LABELS unit)
