# Third-party libraries, all from Debian (packages.txt). Each is PRIVATE to the one or two folders that use it.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_C protoc-gen-c REQUIRED)

# Not find_package(gRPC): Debian's config wants the C++ plugin. The core library and gpr are enough.
find_library(GRPC_LIBRARY grpc REQUIRED)
find_library(GPR_LIBRARY gpr REQUIRED)
find_path(GRPC_INCLUDE grpc/grpc.h REQUIRED)
add_library(moe_grpc INTERFACE)
target_include_directories(moe_grpc SYSTEM INTERFACE ${GRPC_INCLUDE})
target_link_libraries(moe_grpc INTERFACE ${GRPC_LIBRARY} ${GPR_LIBRARY})
