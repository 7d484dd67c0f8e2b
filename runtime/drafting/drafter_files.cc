#include "runtime/drafting/drafter_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <span>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/drafting/drafter_config.h"
#include "runtime/model/checkpoint_layout.h"

namespace paceline::runtime {

using drafter::DrafterConfig;
using drafter::DrafterKind;
using kernels::MatrixSource;
using kernels::WeightFormat;

namespace {

void check_finite(std::span<const float> values, const Checkpoint& checkpoint,
                  const std::string& name, std::int64_t first = 0) {
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return;
  throw ConfigError("{}: tensor \"{}\" holds {} at element {}, expected finite numbers",
                    checkpoint.path().string(), name, *bad, first + (bad - values.begin()));
}

// Some rows at a time.
void check_finite(const MatrixSource& matrix, const Checkpoint& checkpoint,
                  const std::string& name) {
  constexpr std::int64_t kElements = std::int64_t{1} << 20;
  const std::int64_t at_once =
      std::max<std::int64_t>(1, kElements / std::max<std::int64_t>(1, matrix.cols()));
  for (std::int64_t row = 0; row < matrix.rows(); row += at_once) {
    const kernels::IndexRange rows{row, std::min(row + at_once, matrix.rows())};
    check_finite(kernels::to_fp32(kernels::read_rows(matrix, rows)), checkpoint, name,
                 row * matrix.cols());
  }
}

WeightFormat chosen_format(WeightChoice choice, WeightFormat stored) {
  switch (choice) {
    case WeightChoice::kAuto:
      return stored;
    case WeightChoice::kFp32:
      return WeightFormat::kFp32;
    case WeightChoice::kBf16:
      return WeightFormat::kBf16;
    case WeightChoice::kFp8:
      return WeightFormat::kFp8;
    case WeightChoice::kInt8:
      return WeightFormat::kInt8Channel;
    case WeightChoice::kInt4:
      return WeightFormat::kInt4Group;
  }
  throw FatalError("no drafter weights {}", static_cast<int>(choice));
}

// Medusa's own code keeps its heads in a Python pickle, which can run any code: it is not read.
Checkpoint open_heads(const std::filesystem::path& directory) {
  const std::string stem = "medusa_lm_head";
  std::error_code failure;  // what cannot be looked at is named when it is opened
  const auto there = [&](const std::string& name) {
    return std::filesystem::exists(directory / name, failure);
  };
  if (there(stem + ".safetensors")) return Checkpoint::open(directory, stem);
  if (there(stem + ".pt") && !there("model.safetensors")) {
    throw ConfigError(
        "{0}/{1}.pt is a Python pickle, which is not read. Convert it: cd {0} && python3 -c "
        "\"import torch, safetensors.torch; heads = torch.load('{1}.pt', map_location='cpu', "
        "weights_only=True); safetensors.torch.save_file({{name: tensor.clone() for name, tensor "
        "in "
        "heads.items()}}, '{1}.safetensors')\"",
        directory.string(), stem);
  }
  return Checkpoint::open(directory);
}

}  // namespace

MatrixSource base_output_rows(const DraftedModel& model,
                              std::span<const std::int32_t> draft_vocab) {
  const ModelConfig& base = model.config;
  const std::string name = base.tie_word_embeddings ? "model.embed_tokens" : "lm_head";
  const WeightFormat format = stored_format(
      stored_linear(model.checkpoint, base, name, base.vocab_size, base.hidden_size).format);
  MatrixSource whole =
      WeightReader(model.checkpoint, base)
          .rows(name, base.vocab_size, base.hidden_size, {0, base.vocab_size}, format);
  if (draft_vocab.empty()) return whole;
  std::vector<kernels::IndexRange> rows;
  for (const std::int32_t token : draft_vocab) {
    if (!rows.empty() && rows.back().end == token) {
      ++rows.back().end;
    } else {
      rows.push_back({token, token + 1});
    }
  }
  return kernels::take_rows(std::move(whole), rows);
}

DrafterFiles::DrafterFiles(DrafterConfig config, bool quantized, Checkpoint checkpoint,
                           WeightChoice weights, const DraftedModel& model)
    : config_(std::move(config)),
      checkpoint_(std::move(checkpoint)),
      weights_(weights),
      model_(model) {
  storage_.paceline_quantized = quantized;
  if (config_.kind == DrafterKind::kMedusa) prefix_ = medusa_prefix(checkpoint_);
}

DrafterFiles DrafterFiles::open(const std::filesystem::path& directory, WeightChoice weights,
                                const DraftedModel& model) {
  const std::filesystem::path path = directory / "config.json";
  const Json json = read_json(path, {.max_bytes = std::size_t{1} << 24, .max_depth = 16});
  Checkpoint checkpoint = is_medusa(json) ? open_heads(directory) : Checkpoint::open(directory);
  DrafterConfig config = parse_drafter_config(json, path.string(), &checkpoint);
  drafter::check_fits(config, directory.string(),
                      {model.name, model.config.vocab_size, model.config.hidden_size});
  DrafterFiles files(std::move(config), paceline_quantized(json, path.string()),
                     std::move(checkpoint), weights, model);
  files.check_weights();
  files.check_layout();
  files.check_numbers();
  return files;
}

void DrafterFiles::check_weights() const {
  if (weights_ != WeightChoice::kInt4) return;
  for (const drafter::HeadLinearShape& linear : drafter::linears_of(config_)) {
    if (linear.k % kernels::kWeightGroup == 0) continue;
    throw ConfigError(
        "--drafter-weights int4: \"{}\" of {} has {} inputs, expected a multiple of {}",
        linear.name, checkpoint_.path().string(), linear.k, kernels::kWeightGroup);
  }
}

void DrafterFiles::check_layout() const {
  std::set<std::string, std::less<>> known;
  for (const drafter::HeadLinearShape& linear : drafter::linears_of(config_)) {
    const std::string name = prefix_ + linear.name;
    const StoredLinear found = stored_linear(checkpoint_, storage_, name, linear.n, linear.k);
    for (const StoredTensor* tensor : {found.weight, found.scales, found.minimums}) {
      if (tensor != nullptr) known.insert(tensor->name);
    }
    if (linear.bias) known.insert(stored_vector(checkpoint_, name + ".bias", linear.n).name);
  }
  for (const std::string& name : checkpoint_.names()) {
    if (known.contains(name) || may_be_left_out(name)) continue;
    throw ConfigError("{}: tensor \"{}\" has no place in the drafter that config.json describes",
                      checkpoint_.path().string(), name);
  }
}

// Read once more when they are loaded: a head is small, and what is bad is refused before any work.
void DrafterFiles::check_numbers() const {
  for (const drafter::HeadLinearShape& linear : drafter::linears_of(config_)) {
    const std::string name = prefix_ + linear.name;
    check_finite(stored_matrix(linear.name, linear.n, linear.k), checkpoint_,
                 stored_linear(checkpoint_, storage_, name, linear.n, linear.k).weight->name);
    if (linear.bias) {
      check_finite(vector(linear.name + ".bias", linear.n), checkpoint_, name + ".bias");
    }
  }
}

// What a file may hold besides: output matrices although the head is tied, Medusa heads beyond
// those that the config counts, and the base model itself where its heads are marked by a prefix.
bool DrafterFiles::may_be_left_out(const std::string& name) const {
  if (!name.starts_with(prefix_)) return true;
  const std::string own = name.substr(prefix_.size());
  if (config_.tied_head && drafter::is_output(config_, own.substr(0, own.rfind('.')))) return true;
  if (config_.kind != DrafterKind::kMedusa) return false;
  std::int64_t head = 0;
  const auto [end, failure] = std::from_chars(own.data(), own.data() + own.size(), head);
  return failure == std::errc() && end != own.data() + own.size() && *end == '.' &&
         head >= config_.num_heads;
}

MatrixSource DrafterFiles::stored_matrix(const std::string& name, std::int64_t n,
                                         std::int64_t k) const {
  const WeightFormat format =
      stored_format(stored_linear(checkpoint_, storage_, prefix_ + name, n, k).format);
  return WeightReader(checkpoint_, storage_).rows(prefix_ + name, n, k, {0, n}, format);
}

MatrixSource DrafterFiles::matrix(const std::string& name, std::int64_t n, std::int64_t k) const {
  const bool tied = config_.tied_head && drafter::is_output(config_, name);
  MatrixSource matrix =
      tied ? base_output_rows(model_, config_.draft_vocab) : stored_matrix(name, n, k);
  if (tied) check_finite(matrix, model_.checkpoint, name);
  const WeightFormat format = chosen_format(weights_, matrix.format());
  return kernels::convert(std::move(matrix), format);
}

std::vector<float> DrafterFiles::vector(const std::string& name, std::int64_t n) const {
  return WeightReader(checkpoint_, storage_).vector(prefix_ + name, n, {0, n});
}

}  // namespace paceline::runtime
