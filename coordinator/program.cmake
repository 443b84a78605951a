moe_library(moe_labels SOURCES labels.c PUBLIC moe_base PRIVATE PkgConfig::JANSSON)
moe_program(conclave-coordinator
  SOURCES main.c options.c
  LIBS moe_api moe_labels moe_engine moe_embedded moe_pool moe_member moe_model moe_tokenizer)
