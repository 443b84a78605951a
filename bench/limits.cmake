# What a GPU can do at most, for bench_model --device cuda: built where the CUDA module is, and like it.
if(NOT TARGET conclave-cuda)
  return()
endif()
set(object ${CMAKE_CURRENT_BINARY_DIR}/fma.o)
add_custom_command(OUTPUT ${object}
  COMMAND ${MOE_NVCC} -std=c++17 -O3 -ftz=true -fmad=false -gencode arch=compute_80,code=[sm_80,compute_80] -gencode arch=compute_90,code=sm_90
    -Werror all-warnings -Xcompiler -fPIC,-fvisibility=hidden -I${PROJECT_SOURCE_DIR} -MD -MF ${object}.d
    -c ${CMAKE_CURRENT_SOURCE_DIR}/cuda/fma.cu -o ${object}
  MAIN_DEPENDENCY cuda/fma.cu DEPFILE ${object}.d COMMENT "Building CUDA object bench/cuda/fma.o" VERBATIM)
get_filename_component(cuda_root ${MOE_NVCC} DIRECTORY)
get_filename_component(cuda_root ${cuda_root} DIRECTORY)
add_library(conclave-cuda-limits MODULE cuda/limits.c ${object})
set_target_properties(conclave-cuda-limits PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
target_include_directories(conclave-cuda-limits PRIVATE ${PROJECT_SOURCE_DIR})
target_include_directories(conclave-cuda-limits SYSTEM PRIVATE ${cuda_root}/include)
target_link_libraries(conclave-cuda-limits PRIVATE moe_flags ${MOE_CUDART} -l:libstdc++.a pthread rt dl m)
target_link_options(conclave-cuda-limits PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
