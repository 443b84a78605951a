moe_fuzz(fuzz_etcd_watch LIBS moe_cluster)
moe_fuzz(fuzz_cluster_state LIBS moe_cluster)
