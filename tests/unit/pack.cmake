moe_test(test_pack LIBS moe_pack PkgConfig::CRYPTO LABELS unit)
