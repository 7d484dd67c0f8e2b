# Compile options shared by every target.
add_library(paceline_options INTERFACE)
target_include_directories(paceline_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(paceline_options INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
  # The contract: a * b + c is one rounding only where the source says fma.
  -ffp-contract=off -fno-math-errno -fno-fast-math)
if(PACELINE_WERROR)
  target_compile_options(paceline_options INTERFACE -Werror)
endif()
if(PACELINE_SANITIZE)
  target_compile_options(paceline_options INTERFACE
    -fsanitize=${PACELINE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  target_link_options(paceline_options INTERFACE -fsanitize=${PACELINE_SANITIZE})
endif()
if(PACELINE_FUZZ)
  target_compile_options(paceline_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# One static library per folder: every .cc below it.
function(paceline_library name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "main\\.cc$")
  list(FILTER sources EXCLUDE REGEX "/kernels/cuda/")  # see cmake/cuda.cmake
  list(FILTER sources EXCLUDE REGEX "/parallel/nccl/.*library\\.cc$")  # see cmake/nccl.cmake
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC paceline_options ${ARGN})
endfunction()

# One test program per folder: every *_test.cc below tests/<folder>, except that kernels/cuda has
# one of its own.
function(paceline_tests folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*_test.cc)
  list(FILTER sources EXCLUDE REGEX "/${folder}/cuda/")
  if(NOT sources)
    return()
  endif()
  string(REPLACE "/" "_" name ${folder}_tests)
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${ARGN} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE
    PACELINE_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
    PACELINE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
endfunction()
