moe_fuzz(fuzz_etcd_watch LIBS moe_cluster)
