moe_program(bench_sampling SOURCES bench_sampling.c LIBS moe_sampling moe_compute)
