foreach(name test_sampling test_sampling_logprobs)
  moe_test(${name} LIBS moe_sampling moe_compute LABELS unit)
endforeach()
