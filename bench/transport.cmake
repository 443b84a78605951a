if(TARGET moe_transport_net)
  moe_program(bench_transport SOURCES bench_transport.c LIBS moe_transport_net)
endif()
