#include "runtime/model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numbers>
#include <optional>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"
#include "kernels/core/half.h"

namespace paceline::runtime {

using kernels::IndexRange;
using kernels::MatrixSource;
using kernels::WeightFormat;

namespace {

const std::byte* bytes_of(const StoredTensor* tensor) {
  return tensor == nullptr ? nullptr : tensor->bytes.data();
}

std::vector<float> floats_of(const StoredTensor& tensor, IndexRange range) {
  const auto count = static_cast<std::size_t>(range.size());
  const std::byte* source =
      tensor.bytes.data() + static_cast<std::size_t>(range.begin) * stored_size(tensor.type);
  std::vector<float> values(count);
  if (tensor.type == StoredType::kF32) {
    if (count > 0) std::memcpy(values.data(), source, count * sizeof(float));
    return values;
  }
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, source + 2 * i, sizeof(bits));
    values[i] = tensor.type == StoredType::kBF16 ? kernels::bf16_to_fp32(bits)
                                                 : kernels::fp16_to_fp32(bits);
  }
  return values;
}

// fp8's, one for each of n outputs.
std::vector<float> channel_scales(const Checkpoint& checkpoint, const StoredTensor& tensor,
                                  std::int64_t n) {
  std::vector<float> scales = floats_of(tensor, {0, tensor.num_elements()});
  for (const float scale : scales) {
    if (std::isfinite(scale)) continue;
    throw ConfigError("{}: tensor \"{}\" holds {}, expected finite numbers",
                      checkpoint.path().string(), tensor.name, scale);
  }
  if (scales.size() == 1) scales.resize(static_cast<std::size_t>(n), scales[0]);
  return scales;
}

// NaN is the one thing that E4M3 holds and not every device's kernels keep.
void check_no_nan(const Checkpoint& checkpoint, const StoredTensor& tensor,
                  std::span<const std::byte> codes) {
  unsigned found = 0;
  for (const std::byte code : codes) found |= (code & std::byte{0x7f}) == std::byte{0x7f};
  if (found != 0) {
    throw ConfigError("{}: tensor \"{}\" holds NaN, expected finite numbers",
                      checkpoint.path().string(), tensor.name);
  }
}

// Columns `cols` of rows `rows` of an [n, k] as they are stored.
MatrixSource stored_part(const Checkpoint& checkpoint, const StoredLinear& stored, std::int64_t n,
                         std::int64_t k, IndexRange rows, IndexRange cols) {
  const WeightFormat format = stored_format(stored.format);
  const bool is_fp8 = format == WeightFormat::kFp8;
  const kernels::RowBytes bytes = kernels::row_bytes(format, k);
  const kernels::RowBytes kept = kernels::row_bytes(format, cols.size());
  std::shared_ptr<const std::vector<float>> scales;
  if (is_fp8) {
    scales =
        std::make_shared<const std::vector<float>>(channel_scales(checkpoint, *stored.scales, n));
  }
  const kernels::StoredRows all{
      bytes_of(stored.weight),
      is_fp8 ? reinterpret_cast<const std::byte*>(scales->data()) : bytes_of(stored.scales),
      bytes_of(stored.minimums)};
  return {format, rows.size(), cols.size(),
          [&checkpoint, is_fp8, format, scales, weight = stored.weight,
           first = all.from(rows.begin, bytes), k, cols, bytes,
           kept](IndexRange wanted, const kernels::RowSpace& to) {
            kernels::copy_cols(format, first.from(wanted.begin, bytes), k, cols, wanted.size(), to);
            const auto count = static_cast<std::size_t>(wanted.size());
            if (is_fp8) check_no_nan(checkpoint, *weight, {to.values, count * kept.values});
            checkpoint.was_read(count * (kept.values + kept.scales + kept.minimums));
          }};
}

// As messages call an [n, k] from row `first_row` on.
kernels::MatrixName name_of(const Checkpoint& checkpoint, const StoredLinear& stored,
                            std::int64_t first_row) {
  return {fmt::format("{}: tensor \"{}\"", checkpoint.path().string(), stored.weight->name),
          first_row};
}

struct NamedLinear {
  std::string name;
  std::int64_t n = 0;
  std::int64_t k = 0;
};

std::vector<NamedLinear> layer_linears(const ModelConfig& config, std::int64_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::int64_t hidden = config.hidden_size;
  return {{prefix + "self_attn.q_proj", config.q_width(), hidden},
          {prefix + "self_attn.k_proj", config.kv_width(), hidden},
          {prefix + "self_attn.v_proj", config.kv_width(), hidden},
          {prefix + "self_attn.o_proj", hidden, config.q_width()},
          {prefix + "mlp.gate_proj", config.intermediate_size, hidden},
          {prefix + "mlp.up_proj", config.intermediate_size, hidden},
          {prefix + "mlp.down_proj", hidden, config.intermediate_size}};
}

std::vector<NamedLinear> vocabulary_linears(const ModelConfig& config) {
  std::vector<NamedLinear> linears{{"model.embed_tokens", config.vocab_size, config.hidden_size}};
  if (!config.tie_word_embeddings) {
    linears.push_back({"lm_head", config.vocab_size, config.hidden_size});
  }
  return linears;
}

// The one format of all these matrices as stored; fp32 where they differ.
WeightFormat common_format(const Checkpoint& checkpoint, const ModelConfig& config,
                           std::span<const NamedLinear> linears) {
  std::optional<WeightFormat> common;
  for (const NamedLinear& linear : linears) {
    const auto format =
        stored_format(stored_linear(checkpoint, config, linear.name, linear.n, linear.k).format);
    if (common && *common != format) return WeightFormat::kFp32;
    common = format;
  }
  return common.value_or(WeightFormat::kFp32);
}

void check_groups(std::span<const NamedLinear> linears, WeightFormat format) {
  if (format != WeightFormat::kInt4Group && format != WeightFormat::kInt8Group) return;
  for (const NamedLinear& linear : linears) {
    if (linear.k % kernels::kWeightGroup == 0) continue;
    throw ConfigError("--weights {}: {} has {} inputs, expected a multiple of {}",
                      kernels::format_name(format), linear.name, linear.k, kernels::kWeightGroup);
  }
}

}  // namespace

WeightFormat stored_format(LinearFormat format) {
  switch (format) {
    case LinearFormat::kF32:
      return WeightFormat::kFp32;
    case LinearFormat::kF16:
      return WeightFormat::kFp16;
    case LinearFormat::kBF16:
      return WeightFormat::kBf16;
    case LinearFormat::kFp8:
      return WeightFormat::kFp8;
    case LinearFormat::kInt8:
      return WeightFormat::kInt8Group;
    case LinearFormat::kInt4:
      return WeightFormat::kInt4Group;
  }
  throw FatalError("unknown stored format {}", static_cast<int>(format));
}

WeightChoice parse_weight_choice(std::string_view name) {
  if (name == "auto") return WeightChoice::kAuto;
  if (name == "fp32") return WeightChoice::kFp32;
  if (name == "bf16") return WeightChoice::kBf16;
  if (name == "fp8") return WeightChoice::kFp8;
  if (name == "int8") return WeightChoice::kInt8;
  if (name == "int4") return WeightChoice::kInt4;
  throw ConfigError("--weights {}: expected auto, fp32, bf16, fp8, int8 or int4", name);
}

WeightFormats choose_formats(const Checkpoint& checkpoint, const ModelConfig& config,
                             WeightChoice choice) {
  std::vector<NamedLinear> linears;
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (NamedLinear& linear : layer_linears(config, layer)) linears.push_back(std::move(linear));
  }
  const std::vector<NamedLinear> vocabulary = vocabulary_linears(config);
  const WeightFormat stored = common_format(checkpoint, config, linears);
  const WeightFormat stored_vocabulary = common_format(checkpoint, config, vocabulary);

  WeightFormats formats;
  switch (choice) {
    case WeightChoice::kAuto:
      formats = {stored, stored_vocabulary, ""};
      break;
    case WeightChoice::kFp32:
      formats = {WeightFormat::kFp32, WeightFormat::kFp32, ""};
      break;
    case WeightChoice::kBf16:
      formats = {WeightFormat::kBf16, WeightFormat::kBf16, ""};
      break;
    case WeightChoice::kFp8:
      formats = {WeightFormat::kFp8, WeightFormat::kBf16, ""};
      break;
    case WeightChoice::kInt8:
      formats = {WeightFormat::kInt8Channel, WeightFormat::kInt8Channel, ""};
      break;
    case WeightChoice::kInt4:
      formats = {WeightFormat::kInt4Group, WeightFormat::kInt8Group, ""};
      break;
  }
  check_groups(linears, formats.linear);
  check_groups(vocabulary, formats.vocabulary);
  if (formats.linear != stored || formats.vocabulary != stored_vocabulary) {
    formats.conversion = fmt::format(
        "weights converted at load: {} to {}, vocabulary {} to {}", kernels::format_name(stored),
        kernels::format_name(formats.linear), kernels::format_name(stored_vocabulary),
        kernels::format_name(formats.vocabulary));
  }
  return formats;
}

MatrixSource WeightReader::rows(const std::string& name, std::int64_t n, std::int64_t k,
                                IndexRange rows, WeightFormat format) const {
  const StoredLinear stored = stored_linear(checkpoint_, config_, name, n, k);
  return kernels::convert(stored_part(checkpoint_, stored, n, k, rows, {0, k}), format,
                          name_of(checkpoint_, stored, rows.begin));
}

MatrixSource WeightReader::cols(const std::string& name, std::int64_t n, std::int64_t k,
                                IndexRange cols, WeightFormat format) const {
  const StoredLinear stored = stored_linear(checkpoint_, config_, name, n, k);
  const IndexRange all{0, k};
  if (kernels::has_channel_scales(format) && stored_format(stored.format) != format) {
    const MatrixSource whole = stored_part(checkpoint_, stored, n, k, {0, n}, all);
    return kernels::take_cols(kernels::convert(whole, format, name_of(checkpoint_, stored, 0)),
                              cols);
  }
  kernels::row_bytes(format, cols.begin);  // refuses to cut a group
  return kernels::convert(stored_part(checkpoint_, stored, n, k, {0, n}, cols), format,
                          name_of(checkpoint_, stored, 0));
}

std::vector<float> WeightReader::vector(const std::string& name, std::int64_t n,
                                        IndexRange range) const {
  return floats_of(stored_vector(checkpoint_, name, n), range);
}

std::vector<float> rope_inv_freq(const RopeConfig& rope, std::int64_t head_dim) {
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    double frequency = kernels::exact::pow(rope.theta, exponent);
    if (rope.scaling == RopeScaling::kLinear) {
      frequency /= rope.factor;
    } else if (rope.scaling == RopeScaling::kLlama3) {
      const auto context = static_cast<double>(rope.original_max_positions);
      const double wavelength = 2.0 * std::numbers::pi / frequency;
      if (wavelength > context / rope.low_freq_factor) {
        frequency /= rope.factor;
      } else if (wavelength >= context / rope.high_freq_factor) {
        const double ramp = (context / wavelength - rope.low_freq_factor) /
                            (rope.high_freq_factor - rope.low_freq_factor);
        frequency = (1.0 - ramp) * (frequency / rope.factor) + ramp * frequency;
      }
    }
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

}  // namespace paceline::runtime
