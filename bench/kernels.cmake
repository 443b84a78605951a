moe_program(bench_kernels SOURCES bench_kernels.c kernel_rig.c probe.c LIBS moe_compute)
moe_program(bench_families SOURCES bench_families.c kernel_rig.c probe.c LIBS moe_compute)
