# moe_proto_api: the public messages for C, and the descriptors that reflection serves.
# The .proto files here are the published ones. protoc-c gets a copy of them without proto3 `optional` (cmake/proto_for_c.cmake).
set(api_protos conclave/v1/inference.proto conclave/v1/admin.proto grpc/health/v1/health.proto grpc/reflection/v1/reflection.proto)
set(api_copy ${CMAKE_CURRENT_BINARY_DIR}/copy)
set(api_c ${CMAKE_CURRENT_BINARY_DIR}/c)
set(api_sources "")
foreach(proto ${api_protos})
  get_filename_component(folder ${proto} DIRECTORY)
  string(REGEX REPLACE "\\.proto$" "" stem ${proto})
  file(MAKE_DIRECTORY ${api_copy}/${folder} ${api_c}/${folder})
  add_custom_command(
    OUTPUT ${api_copy}/${proto}
    COMMAND ${CMAKE_COMMAND} -DIN=${CMAKE_CURRENT_SOURCE_DIR}/${proto} -DOUT=${api_copy}/${proto} -P ${PROJECT_SOURCE_DIR}/cmake/proto_for_c.cmake
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${proto} ${PROJECT_SOURCE_DIR}/cmake/proto_for_c.cmake
    VERBATIM)
  add_custom_command(
    OUTPUT ${api_c}/${stem}.pb-c.c ${api_c}/${stem}.pb-c.h
    COMMAND ${PROTOC} --plugin=protoc-gen-c=${PROTOC_C} -I${api_copy} --c_out=${api_c} ${proto}
    DEPENDS ${api_copy}/${proto}
    VERBATIM)
  list(APPEND api_sources ${api_c}/${stem}.pb-c.c ${api_c}/${stem}.pb-c.h)
endforeach()

set(api_published ${api_protos} grpc/reflection/v1alpha/reflection.proto)
list(TRANSFORM api_published PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE api_published_paths)
add_custom_command(
  OUTPUT ${api_c}/api_descriptors.c
  COMMAND ${PROTOC} -I${CMAKE_CURRENT_SOURCE_DIR} --include_imports --descriptor_set_out=${api_c}/api_descriptors.bin ${api_published}
  COMMAND ${CMAKE_COMMAND} -DIN=${api_c}/api_descriptors.bin -DOUT=${api_c}/api_descriptors.c -DNAME=moe_proto_descriptors -P ${PROJECT_SOURCE_DIR}/cmake/hex_array.cmake
  DEPENDS ${api_published_paths} ${PROJECT_SOURCE_DIR}/cmake/hex_array.cmake
  VERBATIM)

# Generated code is not held to the warnings of ours.
add_library(moe_proto_api STATIC EXCLUDE_FROM_ALL ${api_sources} ${api_c}/api_descriptors.c)
target_compile_options(moe_proto_api PRIVATE -w)
target_include_directories(moe_proto_api SYSTEM PUBLIC ${api_c})
target_link_libraries(moe_proto_api PUBLIC PkgConfig::PROTOBUF_C)
