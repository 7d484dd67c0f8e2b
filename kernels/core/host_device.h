#pragma once

/// Marks the functions that kernels call too: where nvcc compiles them they are made for both
/// sides, elsewhere nothing changes. (constexpr functions, the standard library's too, need no
/// mark: nvcc runs with --expt-relaxed-constexpr.)
#if defined(__CUDACC__)
#define PACELINE_HOST_DEVICE __host__ __device__
#else
#define PACELINE_HOST_DEVICE
#endif
