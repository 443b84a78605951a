moe_test(test_transport_channel LIBS moe_transport_net PkgConfig::SSL LABELS unit)
moe_test(test_transport_shm LIBS moe_transport_net LABELS unit)
moe_test(test_transport_net_lanes LIBS moe_transport_net PkgConfig::SSL LABELS unit)
set(net_tests test_transport_shm test_transport_net_lanes test_transport_net test_transport_net_peer test_transport_net_names)
foreach(name test_transport_net test_transport_net_peer test_transport_net_names)
  moe_test(${name} LIBS moe_transport_net LABELS unit)
  foreach(lane auto ucx-tcp) # the program's own test is of tls
    add_test(NAME ${name}_${lane} COMMAND ${name} ${lane} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name}_${lane} PROPERTIES LABELS unit TIMEOUT 300)
    list(APPEND net_tests ${name}_${lane})
  endforeach()
endforeach()
# When it is loaded, UCX patches mmap and madvise of libc; that crashes ThreadSanitizer's thread start.
set_tests_properties(${net_tests} PROPERTIES ENVIRONMENT "UCX_MEM_EVENTS=n;UCX_NET_DEVICES=lo")
