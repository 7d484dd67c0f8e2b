#include "kernels/core/reduction.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::kernels {

void check_reduction(const Reduction& reduction, WeightFormat format, std::int64_t cols) {
  const std::int64_t group = std::max(1, activation_group(format));
  std::int64_t end = 0;
  int depth = 0;
  for (const Reduction::Segment& segment : reduction.segments) {
    check(segment.cols.begin == end && segment.cols.size() >= 0 && segment.cols.end <= cols,
          "a segment of columns [{}, {}) after column {} of {}", segment.cols.begin,
          segment.cols.end, end, cols);
    end = segment.cols.end;
    check(end == cols || end % group == 0, "a segment ends at column {}, inside a group of {}", end,
          group);
    check(0 <= segment.merges && segment.merges <= depth, "{} merges of {} partial sums",
          segment.merges, depth + 1);
    check(depth < kMaxReductionDepth, "more than {} partial sums at a time", kMaxReductionDepth);
    depth += 1 - segment.merges;
  }
  check(end == cols, "the segments end at column {} of {}", end, cols);
}

void check_merges(std::span<const int> merges) {
  int depth = 0;
  for (const int merge : merges) {
    ++depth;
    check(0 <= merge && merge < depth && depth <= kMaxReductionDepth,
          "sum_partials: {} merges of {} sums, of which at most {} can wait", merge, depth,
          kMaxReductionDepth);
    depth -= merge;
  }
  check(depth == 1, "sum_partials: the merges leave {} sums, not one", depth);
}

}  // namespace paceline::kernels
