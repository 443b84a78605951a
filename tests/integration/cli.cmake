# /usr/bin/python3: the interpreter that Debian's python3-grpcio is for.
add_test(NAME cli_fake COMMAND /usr/bin/python3 ${CMAKE_CURRENT_LIST_DIR}/cli_fake.py $<TARGET_FILE:conclave> ${PROJECT_SOURCE_DIR}/proto)
set_tests_properties(cli_fake PROPERTIES LABELS integration TIMEOUT 300)
