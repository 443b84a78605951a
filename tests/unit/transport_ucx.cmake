moe_test(test_transport_meet LIBS moe_transport_ucx LABELS unit)
moe_test(test_transport_ucx LIBS moe_transport_ucx LABELS unit)
moe_test(test_transport_ucx_peer LIBS moe_transport_ucx LABELS unit)
# When it is loaded, UCX patches mmap and madvise of libc; that crashes ThreadSanitizer's thread start.
set_tests_properties(test_transport_meet test_transport_ucx test_transport_ucx_peer PROPERTIES ENVIRONMENT "UCX_MEM_EVENTS=n")
