foreach(noun config families tensors kinds)
  moe_test(test_model_${noun} LIBS moe_model LABELS unit)
endforeach()
