moe_test(test_cluster_member LIBS moe_cluster LABELS unit)
moe_test(test_cluster_strangers LIBS moe_cluster LABELS unit)
moe_test(test_cluster_seal LIBS moe_cluster LABELS unit)
moe_test(test_cluster_etcd LIBS moe_cluster LABELS unit)
