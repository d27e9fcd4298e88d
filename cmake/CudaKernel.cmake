# Compiles the copy kernel where there is an nvcc; the library finds the CUDA driver at run time, so
# nothing of CUDA is linked. KVBM_COPY_KERNEL_IMAGE: the compiled kernel, or empty.

if(CMAKE_CUDA_COMPILER)
  set(KVBM_NVCC "${CMAKE_CUDA_COMPILER}" CACHE FILEPATH "nvcc, for the copy kernel; optional")
endif()
find_program(KVBM_NVCC nvcc HINTS /usr/local/cuda/bin DOC "nvcc, for the copy kernel; optional")
mark_as_advanced(KVBM_NVCC)
set(KVBM_COPY_KERNEL_IMAGE "")
if(KVBM_NVCC)
  execute_process(COMMAND "${KVBM_NVCC}" --list-gpu-arch OUTPUT_VARIABLE known
                  RESULT_VARIABLE failure ERROR_QUIET)
  # Machine code of the common devices, and code that later drivers translate for later ones.
  set(architectures "")
  set(code "")
  foreach(number IN ITEMS 80 90 100)
    if(known MATCHES "compute_${number}")
      list(APPEND architectures ${number})
      if(number LESS_EQUAL 90)
        set(latest ${number})
      endif()
      list(APPEND code -gencode "arch=compute_${number},code=sm_${number}")
    endif()
  endforeach()
  if(failure OR NOT architectures)
    message(STATUS "Copy kernel: left out, ${KVBM_NVCC} knows none of the architectures 80, 90, 100")
  else()
    list(APPEND code -gencode "arch=compute_${latest},code=compute_${latest}")
    set(KVBM_COPY_KERNEL_IMAGE "${PROJECT_BINARY_DIR}/copy_kernel.fatbin")
    set(folder "${PROJECT_SOURCE_DIR}/src/platform/cuda")
    add_custom_command(
      OUTPUT "${KVBM_COPY_KERNEL_IMAGE}"
      COMMAND "${KVBM_NVCC}" -fatbin -std=c++17 -O3 "-I${PROJECT_SOURCE_DIR}/src" ${code}
              "${folder}/copy_kernel.cu" -o "${KVBM_COPY_KERNEL_IMAGE}"
      DEPENDS "${folder}/copy_kernel.cu" "${folder}/copy_range.h"
      COMMENT "Compiling the copy kernel" VERBATIM)
    set_source_files_properties(
      "${folder}/copy_kernel.cc" PROPERTIES
      COMPILE_DEFINITIONS "KVBM_COPY_KERNEL_IMAGE=\"${KVBM_COPY_KERNEL_IMAGE}\""
      OBJECT_DEPENDS "${KVBM_COPY_KERNEL_IMAGE}")
    list(JOIN architectures ", " architectures)
    message(STATUS "Copy kernel: compiled by ${KVBM_NVCC} for architectures ${architectures}")
  endif()
else()
  message(STATUS "Copy kernel: left out, there is no nvcc; the copy engines do all copies")
endif()
