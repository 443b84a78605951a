moe_library(moe_engine
  SOURCES engine.c engine_step.c request.c scheduler.c
  PUBLIC moe_base moe_model moe_router moe_tokenizer moe_exchange)
moe_library(moe_embedded
  SOURCES embedded.c
  PUBLIC moe_base moe_model moe_exchange moe_expert_node
  PRIVATE moe_wire)
moe_library(moe_pool
  SOURCES pool.c pool_view.c
  PUBLIC moe_base moe_exchange moe_member
  PRIVATE moe_transport_ucx moe_cluster)
