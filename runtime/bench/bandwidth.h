#pragma once

#include <cstddef>

#include "kernels/api.h"

namespace paceline::runtime {

/// Bytes to read for a rank's memory and not its caches to be measured: twice the last cache and
/// something for each thread.
std::size_t bandwidth_bytes(int threads);

/// Bytes per second that the backend's threads read, the median of a few passes over `bytes` of
/// fresh memory. Ranks that share a machine's memory measure at the same time.
double read_bandwidth(kernels::Backend& backend, std::size_t bytes);

}  // namespace paceline::runtime
