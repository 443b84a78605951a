# cmake -DIN=published.proto -DOUT=copy.proto -P proto_for_c.cmake
# protoc-c refuses proto3 `optional`. The copy says `oneof has_f { T f = n; }` instead: the same bytes on the wire, and C gets
# has_f_case. tests/unit/test_api_proto.c compares the bytes.
file(READ ${IN} text)
string(REGEX REPLACE "\n( *)optional +([A-Za-z0-9_.]+) +([a-z0-9_]+) *= *([0-9]+) *;" "\n\\1oneof has_\\3 { \\2 \\3 = \\4; }" text "${text}")
if(text MATCHES "\n *optional ")
  message(FATAL_ERROR "${IN}: an optional field that is not written as `optional T f = n;` on one line")
endif()
file(WRITE ${OUT} "${text}")
