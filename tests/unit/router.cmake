moe_test(test_router_set LIBS moe_router LABELS unit)
moe_test(test_router_gate LIBS moe_router LABELS unit)
moe_test(test_router_placement LIBS moe_router LABELS unit)
moe_test(test_router_plan LIBS moe_router LABELS unit)
