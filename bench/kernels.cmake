moe_program(bench_kernels SOURCES bench_kernels.c probe.c LIBS moe_compute)
moe_program(bench_families SOURCES bench_families.c probe.c LIBS moe_compute)
