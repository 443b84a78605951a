moe_program(bench_kernels SOURCES bench_kernels.c kernel_rig.c cpu_limits.c LIBS moe_compute)
moe_program(bench_families SOURCES bench_families.c kernel_rig.c cpu_limits.c LIBS moe_compute)
