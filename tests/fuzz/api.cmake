moe_fuzz(fuzz_auth LIBS moe_api)
moe_fuzz(fuzz_grpc_request LIBS moe_api moe_fake_engine)
