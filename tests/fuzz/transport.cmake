if(TARGET moe_transport_net)
  moe_fuzz(fuzz_channel LIBS moe_transport_net)
  moe_fuzz(fuzz_transport_notes LIBS moe_transport_net)
endif()
