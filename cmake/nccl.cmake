# Exchanges between GPUs by NCCL, parallel/nccl: built where CUDA is and nccl.h and libnccl are found.
paceline_find_beside_cuda(NCCL nccl.h nccl "exchanges by NCCL")
if(PACELINE_HAS_NCCL)
  add_library(nccl INTERFACE)
  target_include_directories(nccl SYSTEM INTERFACE ${NCCL_INCLUDE})
  target_link_libraries(nccl INTERFACE ${NCCL_LIBRARY} CUDA::cudart_static)
endif()
