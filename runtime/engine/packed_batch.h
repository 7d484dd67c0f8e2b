#pragma once

#include <cstdint>
#include <vector>

#include "kernels/params.h"
#include "runtime/engine/scheduler.h"

namespace paceline::runtime {

/// One step's rows, as the model sees them: context rows first, generation rows after. All host
/// memory; filled again each step without allocating once it has grown.
struct PackedBatch {
  std::vector<std::int32_t> tokens;      // [M]
  std::vector<std::int32_t> positions;   // [M]
  std::vector<kernels::RowPlace> rows;   // [M]
  std::vector<std::int32_t> ancestors;   // slots, see RowPlace
  std::vector<std::int32_t> page_table;  // [sequences, page_stride]
  std::int64_t page_stride = 0;
  std::vector<std::int32_t> sampled_rows;      // [R]: rows whose logits are needed
  std::vector<kernels::SamplingRow> sampling;  // [R]
  std::vector<Sequence*> sampled;              // [R]

  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
};

/// Lays a plan out. Example: a prompt of 5 fed in chunks of 3 beside a sequence of 9 known tokens:
///
///   row         0  1  2 | 3
///   sequence    0  0  0 | 1
///   position    0  1  2 | 8
///   sampled              3
void pack(const StepPlan& plan, PackedBatch& batch);

}  // namespace paceline::runtime
