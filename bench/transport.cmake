if(TARGET moe_transport_ucx)
  moe_program(bench_transport SOURCES bench_transport.c LIBS moe_transport_ucx)
endif()
