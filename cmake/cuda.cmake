# The CUDA kernels, kernels/cuda: built with nvcc where it is found; in the tests also with g++, to
# run on the CPU (tests/support/simt).
set(PACELINE_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (if nvcc is found), ON or OFF")
set_property(CACHE PACELINE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(simt_default OFF)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  set(simt_default ON)
endif()
option(PACELINE_SIMT "Test the CUDA kernels on the CPU (g++ only)" ${simt_default})

set(PACELINE_HAS_CUDA OFF)
if(NOT PACELINE_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  find_package(CUDAToolkit 13 QUIET)
  if(CMAKE_CUDA_COMPILER AND CUDAToolkit_FOUND)
    set(PACELINE_HAS_CUDA ON)
  elseif(PACELINE_CUDA STREQUAL ON)
    message(FATAL_ERROR "PACELINE_CUDA=ON, but there is no nvcc of CUDA 13 or later: put it on PATH "
                        "or set CUDACXX")
  endif()
endif()
if(PACELINE_HAS_CUDA)
  # Machine code for the two generations in use, and PTX that later ones compile for themselves.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90 CACHE STRING "GPU generations to compile for")
  endif()
  if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_EXTENSIONS OFF)
endif()

# For a target's sources that nvcc compiles: it does not know the options of paceline_options.
function(paceline_nvcc_options name)
  # The contract, as there: a * b + c is one rounding only where the source says fma.
  set(nvcc_options --expt-relaxed-constexpr -fmad=false
                   -Xcompiler=-ffp-contract=off,-Wall,-Wextra,-Wshadow)
  if(PACELINE_WERROR)
    list(APPEND nvcc_options -Werror=all-warnings -Xcompiler=-Werror)
  endif()
  target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${nvcc_options}>")
endfunction()

# The folder's cuda/*.cu and cuda/*.cc as a library; where there is no nvcc, of cuda/not_built/*.cc.
function(paceline_cuda_library name)
  if(NOT PACELINE_HAS_CUDA)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/not_built/*.cc)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC paceline_options ${ARGN})
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cu
                                      ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cc)
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE fmt::fmt CUDA::cudart_static INTERFACE ${ARGN})
  paceline_nvcc_options(${name})
  target_compile_options(${name} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:$<TARGET_PROPERTY:paceline_options,INTERFACE_COMPILE_OPTIONS>>")
endfunction()

# PACELINE_<name>=AUTO|ON|OFF for a part that needs a library of NVIDIA's: sets PACELINE_HAS_<name>
# where CUDA is and the library found, beside it or where <name>_INCLUDE and <name>_LIBRARY say.
function(paceline_find_beside_cuda name header library part)
  set(PACELINE_${name} AUTO CACHE STRING "Build ${part}: AUTO (if CUDA and lib${library} are found), ON or OFF")
  set_property(CACHE PACELINE_${name} PROPERTY STRINGS AUTO ON OFF)
  set(found OFF)
  if(NOT PACELINE_${name} STREQUAL OFF)
    if(PACELINE_HAS_CUDA)
      find_path(${name}_INCLUDE ${header} HINTS ${CUDAToolkit_INCLUDE_DIRS})
      find_library(${name}_LIBRARY ${library} HINTS ${CUDAToolkit_LIBRARY_DIR})
    endif()
    if(PACELINE_HAS_CUDA AND ${name}_INCLUDE AND ${name}_LIBRARY)
      set(found ON)
    elseif(PACELINE_${name} STREQUAL ON)
      message(FATAL_ERROR "PACELINE_${name}=ON, but ${header} and lib${library}, or CUDA (PACELINE_CUDA), "
                          "are not there: set ${name}_INCLUDE and ${name}_LIBRARY")
    endif()
  endif()
  set(PACELINE_HAS_${name} ${found} PARENT_SCOPE)
endfunction()
