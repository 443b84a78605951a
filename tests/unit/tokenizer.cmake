foreach(part encode decode chat load files regex stages)
  moe_test(test_tokenizer_${part} LIBS moe_tokenizer LABELS unit)
endforeach()
moe_test(test_tokenizer_sentencepiece LIBS moe_tokenizer PkgConfig::JANSSON LABELS unit)
