#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/training/conversations.h"

namespace paceline::runtime {

/// The tokens that a drafter can draft, ascending: `always` and the most frequent ones of the
/// answers (ties go to the lower id), `size` in all, or as many as `always` has if they are more.
/// Empty, which means all tokens, if `size` is 0 or not less than `vocab_size`. Ids of `always`
/// beyond the vocabulary are left out.
std::vector<std::int32_t> choose_draft_vocabulary(std::span<const Conversation* const> texts,
                                                  std::int64_t size, std::int64_t vocab_size,
                                                  std::span<const std::int32_t> always);

/// Share of the answers' tokens that a draft vocabulary holds, 0 to 1.
double covered_share(std::span<const Conversation* const> texts,
                     std::span<const std::int32_t> draft_vocabulary);

}  // namespace paceline::runtime
