foreach(name test_exchange test_exchange_coverage test_exchange_speed test_exchange_memory)
  moe_test(${name} SOURCES ${name}.c ../sim/world.c LIBS moe_exchange moe_expert_node LABELS unit)
endforeach()
target_link_options(test_exchange_memory PRIVATE -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc)
