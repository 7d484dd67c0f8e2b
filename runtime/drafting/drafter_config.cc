#include "runtime/drafting/drafter_config.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "drafter/drafter.h"
#include "runtime/model/config_fields.h"

namespace paceline::runtime {

using drafter::DrafterConfig;
using drafter::DrafterKind;

namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 22;
constexpr std::string_view kMedusaPrefix = "medusa_head.";

bool is_number_below(const Json& value, std::int64_t end) {
  return value.is_number_unsigned() && value.get<std::uint64_t>() < static_cast<std::uint64_t>(end);
}

bool is_list_below(const Json& value, std::int64_t end) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(),
                     [&](const Json& item) { return is_number_below(item, end); });
}

std::vector<std::int32_t> draft_vocab(const ConfigFields& fields) {
  const Json* list = fields.find("draft_vocab");
  if (list == nullptr) return {};
  if (!is_list_below(*list, kMaxSize)) {
    fields.refuse("draft_vocab", "expected a list of token ids");
  }
  return list->get<std::vector<std::int32_t>>();
}

// Shorter paths first, so that parents stand before their children.
std::vector<std::vector<std::int32_t>> medusa_choices(const ConfigFields& fields) {
  const Json* list = fields.find("medusa_choices");
  if (list == nullptr) return {};
  if (!list->is_array() || list->empty() ||
      !std::all_of(list->begin(), list->end(),
                   [](const Json& path) { return is_list_below(path, kMaxSize); })) {
    fields.refuse("medusa_choices", "expected a list of lists of ranks");
  }
  auto choices = list->get<std::vector<std::vector<std::int32_t>>>();
  std::sort(choices.begin(), choices.end(), [](const auto& a, const auto& b) {
    return a.size() < b.size() || (a.size() == b.size() && a < b);
  });
  return choices;
}

DrafterConfig recurrent_config(const ConfigFields& fields) {
  if (fields.text("model_type") != "recurrent_drafting_drafter") {
    fields.refuse("model_type",
                  "expected recurrent_drafting_drafter, or medusa and \"medusa_num_heads\"");
  }
  DrafterConfig config;
  config.vocab_size = fields.size("vocab_size", kMaxSize);
  config.hidden_size = fields.size("hidden_size", kMaxSize);
  config.exit_dim = fields.size("exit_dim", kMaxSize);
  config.num_draft_layers = fields.size("num_draft_layers", kMaxSize);
  if (fields.find("rnn") == nullptr) fields.refuse("rnn", "expected true or false");
  config.rnn = fields.boolean_or("rnn", false);
  return config;
}

DrafterConfig medusa_config(const ConfigFields& fields, const Checkpoint* checkpoint) {
  DrafterConfig config;
  config.kind = DrafterKind::kMedusa;
  config.num_heads = fields.size("medusa_num_heads", drafter::kMaxDraftDepth);
  config.num_draft_layers = fields.size("medusa_num_layers", kMaxSize);
  config.choices = medusa_choices(fields);
  if (fields.find("base_model_name_or_path") != nullptr) {
    config.base_model = fields.text("base_model_name_or_path");
  }
  const StoredTensor* output = nullptr;
  if (checkpoint != nullptr) {
    const std::string name = medusa_prefix(*checkpoint) + drafter::output_name(config, 0);
    output = checkpoint->find(name + ".weight");
  }
  const auto size = [&](const char* key, std::size_t dimension, bool stored) {
    const bool take =
        stored && fields.find(key) == nullptr && output != nullptr && output->shape.size() == 2;
    return take ? output->shape[dimension] : fields.size(key, kMaxSize);
  };
  // With a draft vocabulary the matrix has fewer rows than the base's vocabulary.
  config.vocab_size = size("vocab_size", 0, fields.find("draft_vocab") == nullptr);
  config.hidden_size = size("hidden_size", 1, true);
  config.exit_dim = config.hidden_size;
  return config;
}

}  // namespace

bool is_medusa(const Json& config) {
  return config.is_object() &&
         (config.contains("medusa_num_heads") || config.value("model_type", Json()) == "medusa");
}

std::string medusa_prefix(const Checkpoint& checkpoint) {
  const std::vector<std::string> names = checkpoint.names();
  const bool prefixed = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.starts_with(kMedusaPrefix);
  });
  return prefixed ? std::string(kMedusaPrefix) : std::string();
}

DrafterConfig parse_drafter_config(const Json& json, const std::string& source,
                                   const Checkpoint* checkpoint) {
  const ConfigFields fields(json, source);
  DrafterConfig config =
      is_medusa(json) ? medusa_config(fields, checkpoint) : recurrent_config(fields);
  config.draft_vocab = draft_vocab(fields);
  config.tied_head = fields.boolean_or("tied_head", false);
  drafter::check_config(config, source);
  return config;
}

}  // namespace paceline::runtime
