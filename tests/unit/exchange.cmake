moe_test(test_exchange SOURCES test_exchange.c ../sim/world.c LIBS moe_exchange moe_expert_node LABELS unit)
moe_test(test_exchange_memory SOURCES test_exchange_memory.c ../sim/world.c LIBS moe_exchange moe_expert_node LABELS unit)
target_link_options(test_exchange_memory PRIVATE -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc)
