#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/files/json.h"

namespace paceline::runtime {

/// How the tokens of one request are chosen and where they end.
struct SamplingParams {
  float temperature = 0.0f;  ///< 0: greedy
  std::int32_t top_k = 0;    ///< keep that many candidates; 0: all
  float top_p = 1.0f;        ///< keep the most probable candidates up to this mass; 1: all
  std::optional<std::uint64_t> seed = {};  ///< without one: request_seed()
  std::int64_t max_tokens = 256;
  std::vector<std::string> stop = {};  ///< generation ends where one of these appears

  bool operator==(const SamplingParams&) const = default;
};

/// Limits of SamplingParams.
inline constexpr float kMinTemperature = 1e-4f;  ///< or exactly 0
inline constexpr float kMaxTemperature = 100.0f;
inline constexpr std::size_t kMaxStopStrings = 16;
inline constexpr std::size_t kMaxStopBytes = 1024;

/// Throws RequestError naming the parameter unless all are in range: temperature 0 or
/// [1e-4, 100], top_k from 0, top_p (0, 1], max_tokens from 1, at most 16 stop strings of 1 to
/// 1024 bytes.
void check_sampling(const SamplingParams& sampling);

/// One prompt to be answered.
struct Request {
  std::string id;         ///< its `custom_id`, or `line-N`
  std::int64_t line = 0;  ///< where it stands in the input, from 1
  /// Text to continue; or chat messages, a list of {"role", "content"} with strings; or token ids.
  std::variant<std::string, Json, std::vector<std::int32_t>> prompt;
  SamplingParams sampling;
  /// False: no token is guessed ahead for it. Its answer is the same either way.
  bool speculative = true;
  /// `method`, `url`, `model`, `user` and `metadata`, those that the line has: they mean nothing
  /// here and are written to the result.
  OrderedJson carried = OrderedJson::object();

  bool is_chat() const { return std::holds_alternative<Json>(prompt); }
  bool is_token_ids() const { return std::holds_alternative<std::vector<std::int32_t>>(prompt); }
};

/// The seed of a request that has none: the first 8 bytes, little-endian, of the SHA-256 of the
/// job's seed (8 bytes, little-endian) followed by the request's id.
std::uint64_t request_seed(std::uint64_t job_seed, std::string_view id);

}  // namespace paceline::runtime
