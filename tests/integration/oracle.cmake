if(NOT TARGET conclave-coordinator OR NOT TARGET conclave)
  return()
endif()
set(vectors "")
foreach(name olmoe-gqa olmoe-norm-clip olmoe-tied olmoe-bf16 molm-mlp molm-linear-kv molm-gmm-k4 molm-bf16 moe++-7b-flags
    moe++-2layer-double moe++-mixtral moe++-raw-logits moe++-bf16 mixtral mixtral-head-dim mixtral-linear
    qwen3-moe qwen3-moe-raw-weights qwen3-moe-yarn)
  list(APPEND vectors ${PROJECT_SOURCE_DIR}/tests/vectors/${name})
endforeach()
add_test(NAME oracle
  COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/oracle.py $<TARGET_FILE:conclave> $<TARGET_FILE:conclave-coordinator> ${vectors})
set_tests_properties(oracle PROPERTIES LABELS integration TIMEOUT 600)
add_test(NAME packs_oracle
  COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/packs_oracle.py $<TARGET_FILE:conclave> $<TARGET_FILE:conclave-coordinator>)
set_tests_properties(packs_oracle PROPERTIES LABELS integration TIMEOUT 600)
if(TARGET api_python_descriptors)
  add_test(NAME packs_live COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/packs_live.py $<TARGET_FILE:conclave>
    $<TARGET_FILE:conclave-coordinator> ${CMAKE_CURRENT_BINARY_DIR}/api_python/api.bin)
  set_tests_properties(packs_live PROPERTIES LABELS integration TIMEOUT 600 SKIP_RETURN_CODE 77)
endif()
