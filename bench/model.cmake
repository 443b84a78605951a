if(TARGET moe_embedded)
  moe_program(bench_model SOURCES bench_model.c rig.c frames.c olmoe_image.c timed_device.c probe.c LIBS moe_embedded moe_engine)
endif()
