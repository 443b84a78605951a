# The engine, the tokenizer and the router behind it are linked by the program, so that tests can put fakes in their place.
moe_library(moe_api
  SOURCES grpc_server.c rpc.c wake.c proto_check.c auth.c tls.c session.c intake.c reply.c generate.c score.c classify.c inference.c
    admin.c expert_counts.c health.c descriptors.c reflection.c http.c metrics.c accept.c
  PUBLIC moe_base moe_proto_api moe_http
  PRIVATE moe_grpc PkgConfig::PROTOBUF_C PkgConfig::CRYPTO)
