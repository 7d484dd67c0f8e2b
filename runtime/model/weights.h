#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/matrix_source.h"
#include "runtime/model/checkpoint_layout.h"
#include "runtime/model/config.h"

namespace paceline::runtime {

/// `--weights`: the format that the model is computed in.
enum class WeightChoice { kAuto, kFp32, kBf16, kFp8, kInt8, kInt4 };

/// Throws ConfigError listing the names.
WeightChoice parse_weight_choice(std::string_view name);

/// A stored linear's format in memory, where nothing is converted.
kernels::WeightFormat stored_format(LinearFormat format);

/// The formats that a choice comes to on one checkpoint.
struct WeightFormats {
  kernels::WeightFormat linear = kernels::WeightFormat::kFp32;      // attention and FFN matrices
  kernels::WeightFormat vocabulary = kernels::WeightFormat::kFp32;  // embedding and output matrix
  /// What differs from the checkpoint, for the user; empty if nothing is converted.
  std::string conversion;
};

/// kAuto keeps what is stored (fp32 where layers differ). kInt4 keeps the embedding and the output
/// matrix, which quality hangs on, in groups of int8, kFp8 in bf16. Throws ConfigError if a matrix
/// cannot be held in the format (inputs not a multiple of 32), naming it.
WeightFormats choose_formats(const Checkpoint& checkpoint, const ModelConfig& config,
                             WeightChoice choice);

/// Parts of the checkpoint's matrices, converted to the format asked for. Nothing is read before a
/// backend packs them; then each rank reads its own part of the files, some rows at a time. They
/// must not outlive the checkpoint.
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, const ModelConfig& config)
      : checkpoint_(checkpoint), config_(config) {}

  /// Rows `rows` of linear `name` [n, k].
  kernels::MatrixSource rows(const std::string& name, std::int64_t n, std::int64_t k,
                             kernels::IndexRange rows, kernels::WeightFormat format) const;

  /// Columns `cols` of linear `name` [n, k]. Scales per output are those of the whole row, so that
  /// every cut of the matrix holds the same numbers.
  kernels::MatrixSource cols(const std::string& name, std::int64_t n, std::int64_t k,
                             kernels::IndexRange cols, kernels::WeightFormat format) const;

  /// Elements `range` of a float vector, as fp32.
  std::vector<float> vector(const std::string& name, std::int64_t n,
                            kernels::IndexRange range) const;

 private:
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
};

/// Inverse rotary frequencies [head_dim / 2] (Su et al. 2021), with linear or llama3 scaling as
/// Hugging Face's `rope_scaling` defines them.
std::vector<float> rope_inv_freq(const RopeConfig& rope, std::int64_t head_dim);

}  // namespace paceline::runtime
