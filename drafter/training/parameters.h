#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drafter/config.h"
#include "drafter/training/gemm.h"
#include "drafter/weights.h"

namespace paceline::drafter {

/// One tensor of a head within the flat buffer of all of them.
struct TensorPlace {
  std::string name;  ///< as in the kind's checkpoint format
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;  ///< of its first element
  std::int64_t size = 0;    ///< elements
  bool decays = false;      ///< weight decay applies: to matrices, not to biases
};

/// Where each trainable tensor of a head lies: one after the other, without gaps, in the order of
/// linears_of(config).
struct HeadLayout {
  std::vector<TensorPlace> tensors;
  std::int64_t size = 0;  ///< elements of the buffer

  /// Throws FatalError if there is no such tensor.
  const TensorPlace& at(std::string_view name) const;
};

HeadLayout layout_of(const DrafterConfig& config);

/// A linear layer's weight [n, k] and bias [n]; empty where the head has none.
struct LinearTensors {
  Matrix weight;
  std::span<float> bias;
};

/// Residual blocks and what follows them.
struct ExitTensors {
  std::vector<LinearTensors> blocks;  ///< [exit_dim, exit_dim] each
  Matrix output;                      ///< [outputs, exit_dim]; empty if the head is tied
};

/// The tensors of a head, or their gradients, as views into a flat buffer.
struct HeadTensors {
  LinearTensors rnn_u;             ///< [hidden, hidden], only if rnn
  LinearTensors rnn_w;             ///< [hidden, hidden], no bias, only if rnn
  LinearTensors input_proj;        ///< [exit_dim, 2 hidden], only if has_input_projection()
  std::vector<ExitTensors> exits;  ///< one, or Medusa's heads
};

/// `values` has the layout's size.
HeadTensors view_of(const DrafterConfig& config, const HeadLayout& layout, std::span<float> values);

/// The fp32 master weights of a head in training.
class HeadParameters {
 public:
  /// All zeros. Throws ConfigError if the config cannot be trained.
  explicit HeadParameters(const DrafterConfig& config);
  HeadParameters(const HeadParameters&) = delete;  // tensors() are views into values()
  HeadParameters& operator=(const HeadParameters&) = delete;

  /// Random recurrence weights, uniform within +-1/sqrt(hidden); residual blocks that are the
  /// identity; an input projection that hands on the first exit_dim elements of concat(hidden,
  /// state), plus a little of the state; output matrices whose columns are the base's.
  /// base_output [outputs, hidden]: the base's output rows of the draft vocabulary.
  void initialize(std::uint64_t seed, ConstMatrix base_output);

  /// The weights of a drafter of the same config. Throws what `source` throws.
  void load(const WeightSource& source);

  const DrafterConfig& config() const { return config_; }
  const HeadLayout& layout() const { return layout_; }
  std::span<float> values() { return values_; }
  std::span<const float> values() const { return values_; }
  const HeadTensors& tensors() const { return tensors_; }
  /// The elements of one tensor. Throws FatalError if there is no such tensor.
  std::span<const float> tensor(std::string_view name) const;

 private:
  DrafterConfig config_;
  HeadLayout layout_;
  std::vector<float> values_;
  HeadTensors tensors_;
};

}  // namespace paceline::drafter
