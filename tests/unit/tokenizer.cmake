foreach(part encode decode chat load files)
  moe_test(test_tokenizer_${part} LIBS moe_tokenizer LABELS unit)
endforeach()
