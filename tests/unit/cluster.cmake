moe_test(test_cluster_member LIBS moe_cluster LABELS unit)
moe_test(test_cluster_placement LIBS moe_cluster LABELS unit)
moe_test(test_cluster_strangers LIBS moe_cluster LABELS unit)
moe_test(test_cluster_mirror LIBS moe_cluster LABELS unit)
moe_test(test_cluster_seal LIBS moe_cluster LABELS unit)
moe_test(test_cluster_etcd LIBS moe_cluster LABELS unit)
moe_test(test_cluster_etcd_names LIBS moe_cluster LABELS unit)
moe_test(test_member_alive LIBS moe_member moe_transport_net LABELS unit)
set_tests_properties(test_member_alive PROPERTIES ENVIRONMENT "UCX_MEM_EVENTS=n") # docs/transport.md: its hooks run when threads end
