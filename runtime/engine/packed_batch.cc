#include "runtime/engine/packed_batch.h"

#include <algorithm>

namespace paceline::runtime {
namespace {

void append(const PlannedRows& planned, std::int32_t index, PackedBatch& batch) {
  const Sequence& sequence = *planned.sequence;
  for (std::int32_t i = 0; i < planned.rows; ++i) {
    const std::int32_t position = sequence.computed + i;
    batch.tokens.push_back(sequence.tokens[static_cast<std::size_t>(position)]);
    batch.positions.push_back(position);
    batch.rows.push_back({.sequence = index,
                          .position = position,
                          .slot = position,
                          .base = position + 1,
                          .first_ancestor = 0});
  }
  std::copy(sequence.pages.begin(), sequence.pages.end(),
            batch.page_table.begin() + index * batch.page_stride);
  if (planned.samples) {
    batch.sampled_rows.push_back(static_cast<std::int32_t>(batch.size() - 1));
    batch.sampling.push_back(sequence.sampling());
    batch.sampled.push_back(planned.sequence);
  }
}

}  // namespace

void pack(const StepPlan& plan, PackedBatch& batch) {
  batch.tokens.clear();
  batch.positions.clear();
  batch.rows.clear();
  batch.ancestors.clear();
  batch.sampled_rows.clear();
  batch.sampling.clear();
  batch.sampled.clear();
  batch.page_stride = 0;
  for (const auto* group : {&plan.context, &plan.generation}) {
    for (const PlannedRows& planned : *group) {
      batch.page_stride =
          std::max(batch.page_stride, static_cast<std::int64_t>(planned.sequence->pages.size()));
    }
  }
  const std::size_t sequences = plan.context.size() + plan.generation.size();
  batch.page_table.assign(sequences * static_cast<std::size_t>(batch.page_stride), -1);
  std::int32_t index = 0;
  for (const auto* group : {&plan.context, &plan.generation}) {
    for (const PlannedRows& planned : *group) append(planned, index++, batch);
  }
}

}  // namespace paceline::runtime
