# Needs the model, so it is a library beside moe_test_support.
moe_library(moe_test_model
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/model_fixture.c ${CMAKE_CURRENT_LIST_DIR}/random_model.c ${CMAKE_CURRENT_LIST_DIR}/random_pack.c
  PUBLIC moe_model moe_test_support PkgConfig::CMOCKA)
