# Members of a cluster over a real etcd, which the test starts on free ports: plain, with users, with TLS.
moe_test(etcd_members LIBS moe_cluster SOURCES ${CMAKE_CURRENT_LIST_DIR}/etcd_members.c ${CMAKE_CURRENT_LIST_DIR}/etcd_server.c
  LABELS integration TIMEOUT 600)
set_tests_properties(etcd_members PROPERTIES COST 500 ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
