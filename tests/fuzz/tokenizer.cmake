moe_fuzz(fuzz_tokenizer_json LIBS moe_tokenizer)
moe_fuzz(fuzz_tokenizer_text LIBS moe_tokenizer)
moe_fuzz(fuzz_regex LIBS moe_tokenizer)
moe_fuzz(fuzz_sentencepiece LIBS moe_tokenizer)
