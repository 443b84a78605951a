# The engine, the tokenizer and the sets behind the API, without a model.
add_library(moe_fake_engine STATIC EXCLUDE_FROM_ALL
  ${CMAKE_CURRENT_LIST_DIR}/../support/fake_engine.c ${CMAKE_CURRENT_LIST_DIR}/../support/fake_tokenizer.c
  ${CMAKE_CURRENT_LIST_DIR}/../support/fake_cluster.c)
target_include_directories(moe_fake_engine PUBLIC ${PROJECT_SOURCE_DIR})
target_link_libraries(moe_fake_engine PUBLIC moe_base moe_model moe_request_limits moe_registry PRIVATE moe_flags)

moe_test(test_coordinator_advertise LIBS moe_advertise LABELS unit)
moe_test(test_coordinator_accept LIBS moe_accept LABELS unit)
moe_test(test_coordinator_labels LIBS moe_labels LABELS unit)
moe_test(test_coordinator_kv_memory LIBS moe_kv_memory LABELS unit)
moe_test(test_api_proto LIBS moe_proto_api LABELS unit)
foreach(name grpc_proto auth intake descriptors metrics)
  moe_test(test_api_${name} LIBS moe_api moe_fake_engine LABELS unit)
endforeach()
moe_test(test_coordinator_registry LIBS moe_api moe_fake_engine LABELS unit)
