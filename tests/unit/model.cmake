foreach(noun sample config)
  moe_test(test_model_${noun} LIBS moe_model LABELS unit)
endforeach()
