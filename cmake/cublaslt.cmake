# Products by cuBLASLt, kernels/cuda/cublaslt: built where CUDA is and cublasLt.h and libcublasLt are
# found. The library is loaded when --numerics fast asks for it.
set(PACELINE_CUBLASLT AUTO CACHE STRING "Build products by cuBLASLt: AUTO (if CUDA and cuBLASLt are found), ON or OFF")
set_property(CACHE PACELINE_CUBLASLT PROPERTY STRINGS AUTO ON OFF)

set(PACELINE_HAS_CUBLASLT OFF)
if(NOT PACELINE_CUBLASLT STREQUAL OFF)
  if(PACELINE_HAS_CUDA)
    find_path(CUBLASLT_INCLUDE cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(CUBLASLT_LIBRARY cublasLt HINTS ${CUDAToolkit_LIBRARY_DIR})
  endif()
  if(PACELINE_HAS_CUDA AND CUBLASLT_INCLUDE AND CUBLASLT_LIBRARY)
    set(PACELINE_HAS_CUBLASLT ON)
    add_library(cublaslt INTERFACE)
    target_include_directories(cublaslt SYSTEM INTERFACE ${CUBLASLT_INCLUDE})
    target_compile_definitions(cublaslt INTERFACE PACELINE_CUBLASLT_LIBRARY="${CUBLASLT_LIBRARY}")
    target_link_libraries(cublaslt INTERFACE ${CMAKE_DL_LIBS})
  elseif(PACELINE_CUBLASLT STREQUAL ON)
    message(FATAL_ERROR "PACELINE_CUBLASLT=ON, but cublasLt.h and libcublasLt, or CUDA (PACELINE_CUDA), "
                        "are not there: set CUBLASLT_INCLUDE and CUBLASLT_LIBRARY")
  endif()
endif()
