moe_test(test_coordinator_exchange SOURCES test_coordinator_exchange.c ../sim/world.c LIBS moe_exchange moe_expert_node LABELS unit)
