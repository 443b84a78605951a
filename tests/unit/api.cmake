# The engine, the tokenizer and the sets behind the API, without a model.
add_library(moe_fake_engine STATIC ${CMAKE_CURRENT_LIST_DIR}/../support/fake_engine.c)
target_include_directories(moe_fake_engine PUBLIC ${PROJECT_SOURCE_DIR})
target_link_libraries(moe_fake_engine PUBLIC moe_base PRIVATE moe_flags)
