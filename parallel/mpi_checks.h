#pragma once

#include <mpi.h>

#include <string_view>

#include "kernels/core/error.h"

// Private to the files that see mpi.h.

namespace paceline::parallel {

/// Tags of the messages in MPI_COMM_WORLD. Messages between two ranks of one tag keep their order.
inline constexpr int kGatherTag = 1;
inline constexpr int kBroadcastTag = 2;
inline constexpr int kSliceTag = 3;
inline constexpr int kFirstMailTag = 16;

inline void check_mpi(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw FatalError("{}: {}", what, std::string_view(text, static_cast<std::size_t>(length)));
}

}  // namespace paceline::parallel
