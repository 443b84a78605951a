# /usr/bin/python3: the interpreter that Debian's python3-grpcio is for.
foreach(name cli_fake cli_chat)
  add_test(NAME ${name} COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/${name}.py $<TARGET_FILE:conclave> ${PROJECT_SOURCE_DIR}/proto)
  set_tests_properties(${name} PROPERTIES LABELS integration TIMEOUT 300)
endforeach()
if(NOT MOE_SANITIZE) # nothing of what a sanitizer sees runs in these two
  add_test(NAME configure COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/configure.py ${PROJECT_SOURCE_DIR})
  set_tests_properties(configure PROPERTIES LABELS integration TIMEOUT 300)
  add_test(NAME clients COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/clients.py $<TARGET_FILE:conclave> ${PROJECT_SOURCE_DIR}/proto)
  set_tests_properties(clients PROPERTIES LABELS integration TIMEOUT 900)
endif()
add_test(NAME packs COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/packs.py $<TARGET_FILE:conclave> ${PROJECT_SOURCE_DIR})
add_test(NAME packs_made COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/packs_made.py $<TARGET_FILE:conclave> ${PROJECT_SOURCE_DIR})
add_test(NAME exported COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/exported.py $<TARGET_FILE:conclave> ${PROJECT_SOURCE_DIR})
set_tests_properties(packs packs_made exported PROPERTIES LABELS integration TIMEOUT 300)
if(TARGET conclave-coordinator)
  add_test(NAME cli_coordinator COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/cli_coordinator.py $<TARGET_FILE:conclave>
    $<TARGET_FILE:conclave-coordinator> ${PROJECT_SOURCE_DIR}/tools/make_checkpoint.py)
  add_test(NAME packs_served COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/packs_served.py $<TARGET_FILE:conclave>
    $<TARGET_FILE:conclave-coordinator> ${PROJECT_SOURCE_DIR})
  set_tests_properties(packs_served PROPERTIES LABELS integration TIMEOUT 600)
  add_test(NAME changes COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/changes.py $<TARGET_FILE:conclave>
    $<TARGET_FILE:conclave-coordinator> ${PROJECT_SOURCE_DIR})
  set_tests_properties(changes PROPERTIES LABELS integration TIMEOUT 600)
  set_tests_properties(cli_coordinator PROPERTIES LABELS integration TIMEOUT 600)
  add_test(NAME cli_options COMMAND /usr/bin/python3 -B ${CMAKE_CURRENT_LIST_DIR}/cli_options.py $<TARGET_FILE:conclave>
    $<TARGET_FILE:conclave-coordinator> $<TARGET_FILE:conclave-node> ${PROJECT_SOURCE_DIR})
  set_tests_properties(cli_options PROPERTIES LABELS integration TIMEOUT 300)
endif()
