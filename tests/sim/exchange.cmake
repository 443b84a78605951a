moe_test(sim_exchange SOURCES sim_exchange.c seeds.c world.c LIBS moe_exchange moe_expert_node LABELS sim)
moe_test(sim_moves SOURCES sim_moves.c seeds.c world.c LIBS moe_exchange moe_expert_node LABELS sim)
