moe_library(moe_engine
  SOURCES engine.c engine_step.c request.c scheduler.c
  PUBLIC moe_base moe_model moe_router moe_tokenizer moe_exchange)
