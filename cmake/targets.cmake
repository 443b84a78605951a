# What the Makefile builds: `programs` (what is shipped), `benches`, `fuzzers`. Included last, when all targets are known.
add_custom_target(programs)
foreach(name conclave conclave-coordinator conclave-node conclave-cuda)
  if(TARGET ${name})
    add_dependencies(programs ${name})
  endif()
endforeach()

add_custom_target(benches)
add_dependencies(benches programs) # bench_pool.py starts them
foreach(name bench_kernels bench_families bench_model bench_savings bench_transport conclave-cuda-limits)
  if(TARGET ${name})
    add_dependencies(benches ${name})
  endif()
endforeach()

add_custom_target(fuzzers)
get_property(fuzzer_names GLOBAL PROPERTY MOE_FUZZERS)
foreach(name ${fuzzer_names})
  add_dependencies(fuzzers ${name})
endforeach()
