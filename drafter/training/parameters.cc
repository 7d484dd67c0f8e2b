#include "drafter/training/parameters.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/philox.h"

namespace paceline::drafter {
namespace {

/// Independent numbers from a seed: stream s, index i give the same one on every machine.
class UniformSource {
 public:
  UniformSource(std::uint64_t seed, std::uint32_t stream) : seed_(seed), stream_(stream) {}

  /// In (-bound, bound).
  float at(std::int64_t index, float bound) const {
    const auto block = static_cast<std::uint64_t>(index) / 4;
    const auto numbers = kernels::philox(
        {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), stream_, 0},
        {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
    const double unit = (numbers[static_cast<std::size_t>(index) % 4] + 0.5) * 0x1p-32;
    return static_cast<float>((2 * unit - 1) * bound);
  }

 private:
  std::uint64_t seed_;
  std::uint32_t stream_;
};

enum Stream : std::uint32_t { kRnnU, kRnnW, kInputState };

void fill_uniform(Matrix matrix, const UniformSource& source, float bound) {
  for (std::int64_t r = 0; r < matrix.rows; ++r) {
    const std::span<float> row = matrix.row(r);
    for (std::int64_t c = 0; c < matrix.cols; ++c) row[c] = source.at(r * matrix.cols + c, bound);
  }
}

/// [I | small] where exit_dim <= hidden; the first exit_dim rows of the identity where it is wider.
/// The part that is not the identity reads the state, so that the recurrence matters from the
/// first step.
void initialize_projection(Matrix weight, std::int64_t hidden, const UniformSource& source) {
  const float bound = 1.0f / std::sqrt(static_cast<float>(weight.cols));
  for (std::int64_t r = 0; r < weight.rows; ++r) {
    const std::span<float> row = weight.row(r);
    if (r < hidden) {
      for (std::int64_t c = hidden; c < weight.cols; ++c) {
        row[c] = source.at(r * weight.cols + c, bound);
      }
    }
    if (r < weight.cols) row[r] = 1.0f;
  }
}

const DrafterConfig& checked(const DrafterConfig& config) {
  check_config(config, "the drafter to be trained");
  return config;
}

}  // namespace

const TensorPlace& HeadLayout::at(std::string_view name) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const TensorPlace& place) { return place.name == name; });
  check(found != tensors.end(), "the head has no tensor {}", name);
  return *found;
}

HeadLayout layout_of(const DrafterConfig& config) {
  HeadLayout layout;
  const auto add = [&](std::string name, std::vector<std::int64_t> shape, bool decays) {
    std::int64_t size = 1;
    for (const std::int64_t dimension : shape) size *= dimension;
    layout.tensors.push_back({std::move(name), std::move(shape), layout.size, size, decays});
    layout.size += size;
  };
  for (const HeadLinearShape& linear : linears_of(config)) {
    add(linear.name + ".weight", {linear.n, linear.k}, true);
    if (linear.bias) add(linear.name + ".bias", {linear.n}, false);
  }
  return layout;
}

HeadTensors view_of(const DrafterConfig& config, const HeadLayout& layout,
                    std::span<float> values) {
  check(std::ssize(values) == layout.size, "a head of {} parameters was given {}", layout.size,
        values.size());
  const auto matrix = [&](const std::string& name) {
    const TensorPlace& place = layout.at(name);
    return Matrix{values.data() + place.offset, place.shape[0], place.shape[1], place.shape[1]};
  };
  const auto linear = [&](const std::string& name) {
    const TensorPlace& bias = layout.at(name + ".bias");
    return LinearTensors{matrix(name + ".weight"), values.subspan(bias.offset, bias.size)};
  };
  HeadTensors tensors;
  if (config.rnn) {
    tensors.rnn_u = linear("rnn_u");
    tensors.rnn_w.weight = matrix("rnn_w.weight");
  }
  if (config.has_input_projection()) tensors.input_proj = linear("input_proj");
  for (std::int64_t head = 0; head < config.num_heads; ++head) {
    ExitTensors& exit = tensors.exits.emplace_back();
    for (std::int64_t layer = 0; layer < config.num_draft_layers; ++layer) {
      exit.blocks.push_back(linear(block_name(config, head, layer)));
    }
    if (!config.tied_head) exit.output = matrix(output_name(config, head) + ".weight");
  }
  return tensors;
}

HeadParameters::HeadParameters(const DrafterConfig& config)
    : config_(checked(config)), layout_(layout_of(config_)), values_(layout_.size) {
  tensors_ = view_of(config_, layout_, values_);
}

void HeadParameters::initialize(std::uint64_t seed, ConstMatrix base_output) {
  const std::int64_t hidden = config_.hidden_size;
  check(base_output.rows == config_.num_outputs() && base_output.cols == hidden,
        "the base's output rows are [{}, {}], expected [{}, {}]", base_output.rows,
        base_output.cols, config_.num_outputs(), hidden);
  std::fill(values_.begin(), values_.end(), 0.0f);
  const float bound = 1.0f / std::sqrt(static_cast<float>(hidden));
  if (config_.rnn) {
    fill_uniform(tensors_.rnn_u.weight, {seed, kRnnU}, bound);
    fill_uniform(tensors_.rnn_w.weight, {seed, kRnnW}, bound);
  }
  if (config_.has_input_projection()) {
    initialize_projection(tensors_.input_proj.weight, hidden, {seed, kInputState});
  }
  // The elements of x_0 are those of hidden, as far as they go: there the base's rows fit.
  const std::int64_t columns = std::min(hidden, config_.exit_dim);
  for (const ExitTensors& exit : tensors_.exits) {
    for (std::int64_t r = 0; r < exit.output.rows; ++r) {
      std::copy_n(base_output.row(r).begin(), columns, exit.output.row(r).begin());
    }
  }
}

void HeadParameters::load(const WeightSource& source) {
  constexpr std::string_view kMatrix = ".weight";
  for (const TensorPlace& place : layout_.tensors) {
    std::vector<float> values;
    if (place.shape.size() == 1) {
      values = source.vector(place.name, place.shape[0]);
    } else {
      const std::string linear = place.name.substr(0, place.name.size() - kMatrix.size());
      values = kernels::to_fp32(source.matrix(linear, place.shape[0], place.shape[1]));
    }
    check(std::ssize(values) == place.size, "{} has {} numbers, expected {}", place.name,
          values.size(), place.size);
    std::copy(values.begin(), values.end(), values_.begin() + place.offset);
  }
}

std::span<const float> HeadParameters::tensor(std::string_view name) const {
  const TensorPlace& place = layout_.at(name);
  return values().subspan(place.offset, place.size);
}

}  // namespace paceline::drafter
