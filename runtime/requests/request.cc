#include "runtime/requests/request.h"

#include "kernels/core/error.h"
#include "runtime/files/sha256.h"

namespace paceline::runtime {

void check_sampling(const SamplingParams& sampling) {
  const float temperature = sampling.temperature;
  if (temperature != 0.0f && !(temperature >= kMinTemperature && temperature <= kMaxTemperature)) {
    throw RequestError("temperature", "\"temperature\" is {}, expected 0 or a number from {} to {}",
                       temperature, kMinTemperature, kMaxTemperature);
  }
  if (sampling.top_k < 0) {
    throw RequestError("top_k", "\"top_k\" is {}, expected a whole number from 0", sampling.top_k);
  }
  if (!(sampling.top_p > 0.0f && sampling.top_p <= 1.0f)) {
    throw RequestError("top_p", "\"top_p\" is {}, expected a number above 0 and at most 1",
                       sampling.top_p);
  }
  if (sampling.max_tokens < 1) {
    throw RequestError("max_tokens", "\"max_tokens\" is {}, expected a whole number from 1",
                       sampling.max_tokens);
  }
  if (sampling.stop.size() > kMaxStopStrings) {
    throw RequestError("stop", "\"stop\" has {} strings, at most {} are accepted",
                       sampling.stop.size(), kMaxStopStrings);
  }
  for (const std::string& stop : sampling.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      throw RequestError("stop", "\"stop\" has a string of {} bytes, expected 1 to {}", stop.size(),
                         kMaxStopBytes);
    }
  }
}

std::uint64_t request_seed(std::uint64_t job_seed, std::string_view id) {
  std::string seed_bytes;
  for (int i = 0; i < 8; ++i) seed_bytes += static_cast<char>(job_seed >> (8 * i) & 255);
  const Sha256::Digest digest = Sha256().update(seed_bytes).update(id).finish();
  std::uint64_t seed = 0;
  for (std::size_t i = 0; i < 8; ++i) seed |= std::to_integer<std::uint64_t>(digest[i]) << (8 * i);
  return seed;
}

}  // namespace paceline::runtime
