# Products by cuBLASLt, kernels/cuda/cublaslt: built where CUDA is and cublasLt.h and libcublasLt are
# found. The library is loaded when --numerics fast asks for it.
paceline_find_beside_cuda(CUBLASLT cublasLt.h cublasLt "products by cuBLASLt")
if(PACELINE_HAS_CUBLASLT)
  add_library(cublaslt INTERFACE)
  target_include_directories(cublaslt SYSTEM INTERFACE ${CUBLASLT_INCLUDE})
  target_compile_definitions(cublaslt INTERFACE PACELINE_CUBLASLT_LIBRARY="${CUBLASLT_LIBRARY}")
  target_link_libraries(cublaslt INTERFACE ${CMAKE_DL_LIBS})
endif()
