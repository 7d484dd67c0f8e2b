#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/core/exact_math.h"
#include "kernels/core/host_device.h"
#include "kernels/core/philox.h"
#include "kernels/params.h"

// How a row's token is chosen: the contract's fourth rule, in full.
//
// 1. If any logit is not finite the token is -1.
// 2. Unless temperature > 0: the largest logit, ties to the lower id.
// 3. t[id] = scaled_logit(logit[id], largest logit, temperature): logit / T shifted so that the
//    largest is 0. So a tiny T cannot overflow upwards: it sends all others to -inf, where they
//    never win.
// 4. The tokens are ordered by t, descending, ties to the lower id. top_k keeps the first k.
// 5. top_p < 1 keeps the shortest prefix of what is left whose nucleus_weight sums to at least
//    top_p of all that is left (the crossing token is kept). The weights are integers, so their
//    sums do not depend on any order.
// 6. Of the kept tokens the one with the largest double(t) + gumbel(noise) wins, ties to the lower
//    id (Gumbel-max sampling).

namespace paceline::kernels {

/// (logit - max) / temperature, never above 0, never -0. `temperature` > 0.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline float scaled_logit(float logit, float max,
                                                                      float temperature) {
  return (logit - max) / std::min(temperature, std::numeric_limits<float>::max()) + 0.0f;
}

/// A number from 0 to 1 in units of 2^-40, rounded to nearest.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline std::uint64_t fixed_point(float probability) {
  const double scaled = static_cast<double>(probability) * 0x1p40;
  return std::bit_cast<std::uint64_t>(scaled + 0x1p52) & 0xfffffffffffff;
}

/// A token's share before normalization; t <= 0. Sums of 2^23 of them fit 64 bits.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline std::uint64_t nucleus_weight(float t) {
  return fixed_point(exact::exp(t));
}

/// Whether a prefix of weight `prefix` is a nucleus.
PACELINE_HOST_DEVICE inline bool reaches_nucleus(std::uint64_t prefix, std::uint64_t total,
                                                 float top_p) {
  return static_cast<double>(prefix) >= static_cast<double>(top_p) * static_cast<double>(total);
}

/// The random numbers of tokens 4 * group ... 4 * group + 3.
PACELINE_HOST_DEVICE inline std::array<std::uint32_t, 4> sampling_numbers(const SamplingRow& row,
                                                                          std::uint32_t group) {
  return philox({static_cast<std::uint32_t>(row.index), static_cast<std::uint32_t>(row.index >> 32),
                 group, 0},
                {static_cast<std::uint32_t>(row.seed), static_cast<std::uint32_t>(row.seed >> 32)});
}

/// -log(-log(u)), u = (x + 1/2) / 2^32.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline double gumbel(std::uint32_t x) {
  return -exact::log(-exact::log((static_cast<double>(x) + 0.5) * 0x1p-32));
}

/// The noise of one token, to be added to its log-probability (up to a constant).
PACELINE_HOST_DEVICE inline double sampling_noise(const SamplingRow& row, std::uint32_t id) {
  return gumbel(sampling_numbers(row, id / 4)[id % 4]);
}

/// What MergeLargestParams says of one row.
PACELINE_HOST_DEVICE inline std::int32_t largest_of_parts(const MergeLargestParams& params,
                                                          std::int64_t row) {
  LargestLogit best;
  std::int32_t token = -1;
  for (std::int64_t part = 0; part < params.num_parts; ++part) {
    const LargestLogit& found = params.parts[part * params.rows + row];
    if (found.all_finite == 0) return -1;
    if (found.id < 0 || (token >= 0 && !(found.logit > best.logit))) continue;
    best = found;
    token = params.first_ids[part] + found.id;
  }
  return token;
}

/// By what a guess is compared with the other candidates of its row: at temperature 0 its
/// log-probability; at T > 0 log_prob / T + g, where g is the noise that the token will be chosen
/// with, so that drafts go where the sampled token will fall (drafter-invariant speculative
/// decoding, Daliri et al. 2024).
PACELINE_HOST_DEVICE inline double candidate_score(const SamplingRow& row, std::int32_t token,
                                                   float log_prob) {
  if (!(row.temperature > 0)) return log_prob;
  return static_cast<double>(log_prob) / static_cast<double>(row.temperature) +
         sampling_noise(row, static_cast<std::uint32_t>(token));
}

}  // namespace paceline::kernels
