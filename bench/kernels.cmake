moe_program(bench_kernels SOURCES bench_kernels.c probe.c LIBS moe_compute)
