foreach(noun config config_others generation rope families tensors kinds kv_cache)
  moe_test(test_model_${noun} LIBS moe_model LABELS unit)
endforeach()
