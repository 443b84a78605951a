moe_test(sim_exchange SOURCES sim_exchange.c seeds.c LIBS moe_test_world LABELS sim)
moe_test(sim_moves SOURCES sim_moves.c seeds.c LIBS moe_test_world LABELS sim)
