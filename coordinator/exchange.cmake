moe_library(moe_exchange
  SOURCES exchange.c exchange_node.c
  PUBLIC moe_base moe_compute moe_router moe_transport
  PRIVATE moe_wire)
