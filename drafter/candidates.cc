#include "drafter/candidates.h"

#include <algorithm>

#include "kernels/core/device_memory.h"

namespace paceline::drafter {

CandidateTable::CandidateTable(const DrafterConfig& config, kernels::Backend& backend)
    : config_(config), backend_(backend) {}

void CandidateTable::resize(std::int64_t rows) {
  rows_ = rows;
  kernels::reserve<std::int32_t>(backend_, device_tokens_, rows * kCandidates);
  kernels::reserve<float>(backend_, device_log_probs_, rows * kCandidates);
  kernels::reserve<std::int32_t>(backend_, device_counts_, rows);
}

void CandidateTable::find(
    std::int64_t first, std::int64_t count,
    kernels::FunctionRef<const float*(std::int64_t begin, std::int64_t n)> logits) {
  constexpr std::int64_t kMostLogits = std::int64_t{1} << 24;
  const std::int64_t at_once = std::max<std::int64_t>(1, kMostLogits / config_.num_outputs());
  for (std::int64_t begin = 0; begin < count; begin += at_once) {
    const std::int64_t n = std::min(at_once, count - begin);
    const std::int64_t row = first + begin;
    backend_.top_log_probs({.logits = logits(begin, n),
                            .ids = device_tokens_.as<std::int32_t>() + row * kCandidates,
                            .log_probs = device_log_probs_.as<float>() + row * kCandidates,
                            .counts = device_counts_.as<std::int32_t>() + row,
                            .rows = n,
                            .vocab = config_.num_outputs(),
                            .k = kCandidates});
  }
}

DeviceCandidates CandidateTable::device_rows() const {
  return {device_tokens_.as<std::int32_t>(), device_log_probs_.as<float>(),
          device_counts_.as<std::int32_t>(), kCandidates};
}

void CandidateTable::fetch() {
  const auto download = [&](auto& host, const kernels::Buffer& device, std::int64_t size) {
    host.resize(static_cast<std::size_t>(size));
    backend_.download(host.data(), device.as<void>(), host.size() * sizeof(host[0]));
  };
  download(tokens_, device_tokens_, rows_ * kCandidates);
  download(log_probs_, device_log_probs_, rows_ * kCandidates);
  download(counts_, device_counts_, rows_);
  for (std::int64_t row = 0; row < rows_; ++row) {
    for (std::int32_t i = 0; i < counts_[row]; ++i) {
      std::int32_t& token = tokens_[row * kCandidates + i];
      token = config_.token_of(token);
    }
  }
}

CandidateRows CandidateTable::rows(std::int64_t first) const {
  return {tokens_.data() + first * kCandidates, log_probs_.data() + first * kCandidates,
          counts_.data() + first};
}

}  // namespace paceline::drafter
