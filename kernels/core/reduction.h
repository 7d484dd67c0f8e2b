#pragma once

#include <cstdint>
#include <span>

#include "kernels/params.h"

namespace paceline::kernels {

/// Partial sums that may stand on a reduction's stack at a time.
inline constexpr int kMaxReductionDepth = 64;

/// Throws FatalError unless the segments cover columns [0, cols) in order, each but the last ends
/// at a multiple of the format's activation group, and no segment merges more than the stack holds.
void check_reduction(const Reduction& reduction, WeightFormat format, std::int64_t cols);

/// Throws FatalError unless partial sums merged so (SumPartialsParams) leave one.
void check_merges(std::span<const int> merges);

}  // namespace paceline::kernels
