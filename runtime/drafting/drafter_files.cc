#include "runtime/drafting/drafter_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/model/checkpoint_layout.h"
#include "runtime/model/config_fields.h"

namespace paceline::runtime {

using drafter::DrafterConfig;
using kernels::HostMatrix;
using kernels::WeightFormat;

namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 22;

std::vector<std::int32_t> draft_vocab(const ConfigFields& fields) {
  const Json* list = fields.find("draft_vocab");
  if (list == nullptr) return {};
  const auto is_id = [](const Json& id) {
    return id.is_number_unsigned() &&
           id.get<std::uint64_t>() < static_cast<std::uint64_t>(kMaxSize);
  };
  if (!list->is_array() || list->empty() || !std::all_of(list->begin(), list->end(), is_id)) {
    fields.refuse("draft_vocab", "expected a list of token ids");
  }
  return list->get<std::vector<std::int32_t>>();
}

struct NamedLinear {
  std::string name;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool bias = false;
};

std::string output_name(const DrafterConfig& config) {
  return fmt::format("lm_head.{}", config.num_draft_layers);
}

// What a checkpoint holds for this config; the output matrix only if it is the drafter's own.
std::vector<NamedLinear> linears(const DrafterConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  std::vector<NamedLinear> linears;
  if (config.has_input_projection()) {
    linears.push_back({"input_proj", config.exit_dim, 2 * hidden, true});
  }
  if (config.rnn) {
    linears.push_back({"rnn_w", hidden, hidden, false});
    linears.push_back({"rnn_u", hidden, hidden, true});
  }
  for (std::int64_t i = 0; i < config.num_draft_layers; ++i) {
    linears.push_back(
        {fmt::format("lm_head.{}.linear", i), config.exit_dim, config.exit_dim, true});
  }
  if (!config.tied_head) {
    linears.push_back({output_name(config), config.num_outputs(), config.exit_dim, false});
  }
  return linears;
}

void check_finite(std::span<const float> values, const Checkpoint& checkpoint,
                  const std::string& name) {
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return;
  throw ConfigError("{}: tensor \"{}\" holds {} at element {}, expected finite numbers",
                    checkpoint.path().string(), name, *bad, bad - values.begin());
}

WeightFormat chosen_format(WeightChoice choice, WeightFormat stored) {
  switch (choice) {
    case WeightChoice::kAuto:
      return stored;
    case WeightChoice::kFp32:
      return WeightFormat::kFp32;
    case WeightChoice::kBf16:
      return WeightFormat::kBf16;
    case WeightChoice::kInt8:
      return WeightFormat::kInt8Channel;
    case WeightChoice::kInt4:
      break;
  }
  throw ConfigError("a drafter's weights cannot be int4: expected auto, fp32, bf16 or int8");
}

}  // namespace

DrafterConfig parse_drafter_config(const Json& json, const std::string& source) {
  const ConfigFields fields(json, source);
  if (fields.text("model_type") != "recurrent_drafting_drafter") {
    fields.refuse("model_type", "expected recurrent_drafting_drafter");
  }
  DrafterConfig config;
  config.vocab_size = fields.size("vocab_size", kMaxSize);
  config.hidden_size = fields.size("hidden_size", kMaxSize);
  config.exit_dim = fields.size("exit_dim", kMaxSize);
  config.num_draft_layers = fields.size("num_draft_layers", kMaxSize);
  if (fields.find("rnn") == nullptr) fields.refuse("rnn", "expected true or false");
  config.rnn = fields.boolean_or("rnn", false);
  config.draft_vocab = draft_vocab(fields);
  config.tied_head = fields.boolean_or("tied_head", false);
  drafter::check_config(config, source);
  return config;
}

HostMatrix base_output_rows(const DraftedModel& model, std::span<const std::int32_t> draft_vocab) {
  const ModelConfig& base = model.config;
  const std::string name = base.tie_word_embeddings ? "model.embed_tokens" : "lm_head";
  const WeightFormat format = stored_format(
      stored_linear(model.checkpoint, base, name, base.vocab_size, base.hidden_size).format);
  const HostMatrix whole =
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
  return kernels::take_rows(whole, rows);
}

DrafterFiles::DrafterFiles(DrafterConfig config, bool quantized, Checkpoint checkpoint,
                           WeightChoice weights, const DraftedModel& model)
    : config_(std::move(config)),
      checkpoint_(std::move(checkpoint)),
      weights_(weights),
      model_(model) {
  storage_.paceline_quantized = quantized;
}

DrafterFiles DrafterFiles::open(const std::filesystem::path& directory, WeightChoice weights,
                                const DraftedModel& model) {
  const std::filesystem::path path = directory / "config.json";
  const Json json = read_json(path, {.max_bytes = std::size_t{1} << 24, .max_depth = 16});
  DrafterConfig config = parse_drafter_config(json, path.string());
  drafter::check_fits(config, directory.string(),
                      {model.name, model.config.vocab_size, model.config.hidden_size});
  chosen_format(weights, WeightFormat::kFp32);  // refuses what no drafter can be held in
  DrafterFiles files(std::move(config), paceline_quantized(json, path.string()),
                     Checkpoint::open(directory), weights, model);
  files.check_layout();
  files.check_numbers();
  return files;
}

void DrafterFiles::check_layout() const {
  std::set<std::string, std::less<>> known;
  for (const NamedLinear& linear : linears(config_)) {
    const StoredLinear found =
        stored_linear(checkpoint_, storage_, linear.name, linear.n, linear.k);
    for (const StoredTensor* tensor : {found.weight, found.scales, found.minimums}) {
      if (tensor != nullptr) known.insert(tensor->name);
    }
    if (linear.bias) known.insert(stored_vector(checkpoint_, linear.name + ".bias", linear.n).name);
  }
  for (const std::string& name : checkpoint_.names()) {
    if (known.contains(name)) continue;
    // Files of tied heads may carry the output matrix nevertheless.
    if (config_.tied_head && name.starts_with(output_name(config_) + ".")) continue;
    throw ConfigError("{}: tensor \"{}\" has no place in the drafter that config.json describes",
                      checkpoint_.path().string(), name);
  }
}

// Read once more when they are loaded: a head is small, and what is bad is refused before any work.
void DrafterFiles::check_numbers() const {
  for (const NamedLinear& linear : linears(config_)) {
    const auto& [name, n, k, bias] = linear;
    check_finite(kernels::to_fp32(stored_matrix(name, n, k)), checkpoint_,
                 stored_linear(checkpoint_, storage_, name, n, k).weight->name);
    if (bias) check_finite(vector(name + ".bias", n), checkpoint_, name + ".bias");
  }
}

HostMatrix DrafterFiles::stored_matrix(const std::string& name, std::int64_t n,
                                       std::int64_t k) const {
  const WeightFormat format =
      stored_format(stored_linear(checkpoint_, storage_, name, n, k).format);
  return WeightReader(checkpoint_, storage_).rows(name, n, k, {0, n}, format);
}

HostMatrix DrafterFiles::matrix(const std::string& name, std::int64_t n, std::int64_t k) const {
  const bool tied = config_.tied_head && name == output_name(config_);
  HostMatrix matrix =
      tied ? base_output_rows(model_, config_.draft_vocab) : stored_matrix(name, n, k);
  if (tied) check_finite(kernels::to_fp32(matrix), model_.checkpoint, name);
  const WeightFormat format = chosen_format(weights_, matrix.format);
  return matrix.format == format ? std::move(matrix) : kernels::convert(matrix, format);
}

std::vector<float> DrafterFiles::vector(const std::string& name, std::int64_t n) const {
  return WeightReader(checkpoint_, storage_).vector(name, n, {0, n});
}

}  // namespace paceline::runtime
