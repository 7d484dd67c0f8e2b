#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/config.h"
#include "kernels/api.h"
#include "kernels/core/function_ref.h"
#include "kernels/params.h"

namespace paceline::drafter {

/// Most probable tokens of a row that a draft looks at; what is cut never becomes a node.
inline constexpr std::int32_t kCandidates = 50;

/// What may follow in each of some rows, as `top_log_probs` gives it, with the model's ids.
struct CandidateRows {
  const std::int32_t* tokens = nullptr;  // [rows, kCandidates], the most probable first
  const float* log_probs = nullptr;      // [rows, kCandidates]
  const std::int32_t* counts = nullptr;  // [rows]; 0: the row was not finite

  std::span<const std::int32_t> tokens_of(std::int64_t row) const {
    return {tokens + row * kCandidates, static_cast<std::size_t>(counts[row])};
  }
  std::span<const float> log_probs_of(std::int64_t row) const {
    return {log_probs + row * kCandidates, static_cast<std::size_t>(counts[row])};
  }
};

/// What may follow each of some rows, in device memory, as `top_log_probs` gives it: ids are the
/// head's outputs.
struct DeviceCandidates {
  const std::int32_t* ids = nullptr;     ///< [rows, k], the most probable first
  const float* log_probs = nullptr;      ///< [rows, k]
  const std::int32_t* counts = nullptr;  ///< [rows]; 0: the row was not finite
  std::int32_t k = 0;
};

/// The candidates of rows of logits, found on the device.
class CandidateTable {
 public:
  /// The backend must outlive it.
  CandidateTable(const DrafterConfig& config, kernels::Backend& backend);

  /// Makes room for `rows` rows; what it held is lost.
  void resize(std::int64_t rows);
  /// Fills rows [first, first + count). `logits(begin, n)` gives the logits [n, num_outputs] of
  /// rows first + begin ... first + begin + n - 1 of the table, in device memory; it is asked for
  /// so many at a time that their memory is bounded.
  void find(std::int64_t first, std::int64_t count,
            kernels::FunctionRef<const float*(std::int64_t begin, std::int64_t n)> logits);
  /// All rows where they were found; valid until the next `resize`.
  DeviceCandidates device_rows() const;
  /// Brings all rows to the host.
  void fetch();
  /// From row `first` on; valid until the next `resize` or `fetch`.
  CandidateRows rows(std::int64_t first) const;

 private:
  DrafterConfig config_;
  kernels::Backend& backend_;
  std::int64_t rows_ = 0;
  kernels::Buffer device_tokens_, device_log_probs_, device_counts_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> log_probs_;
  std::vector<std::int32_t> counts_;
};

}  // namespace paceline::drafter
