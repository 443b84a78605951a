if(NOT TARGET conclave-coordinator OR NOT TARGET conclave)
  return()
endif()
set(vectors ${PROJECT_SOURCE_DIR}/tests/vectors)
add_test(NAME oracle
  COMMAND /usr/bin/python3 ${CMAKE_CURRENT_SOURCE_DIR}/oracle.py $<TARGET_FILE:conclave> $<TARGET_FILE:conclave-coordinator>
    ${vectors}/olmoe-gqa ${vectors}/olmoe-norm-clip ${vectors}/olmoe-tied ${vectors}/olmoe-bf16)
set_tests_properties(oracle PROPERTIES LABELS integration TIMEOUT 300)
