#include "drafter/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "drafter/candidates.h"
#include "drafter/drafter.h"
#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

constexpr std::int64_t kMaxVocab = std::int64_t{1} << 22;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMaxLayers = 64;
constexpr std::size_t kMaxChoices = std::size_t{kMaxDraftWidth} * kMaxDraftDepth;

void check_size(std::int64_t value, std::int64_t least, std::int64_t most, const char* key,
                const std::string& drafter) {
  if (value < least || value > most) {
    throw ConfigError("{}: \"{}\" is {}, expected {} to {}", drafter, key, value, least, most);
  }
}

void check_choices(const DrafterConfig& config, const std::string& drafter) {
  using Path = std::vector<std::int32_t>;
  if (config.choices.size() > kMaxChoices) {
    throw ConfigError("{}: \"medusa_choices\" has {} paths, expected at most {}", drafter,
                      config.choices.size(), kMaxChoices);
  }
  std::set<Path> before;
  before.insert(Path());  // the root
  for (const Path& path : config.choices) {
    if (path.empty() || std::ssize(path) > config.num_heads) {
      throw ConfigError(
          "{}: \"medusa_choices\" has a path of {} ranks, expected 1 to {}, one a head", drafter,
          path.size(), config.num_heads);
    }
    const auto refuse = [&](const std::string& what) {
      throw ConfigError("{}: \"medusa_choices\" has [{}], {}", drafter, fmt::join(path, ", "),
                        what);
    };
    if (path.back() < 0 || path.back() >= kCandidates) {
      refuse(fmt::format("expected ranks from 0 to {}", kCandidates - 1));
    }
    if (!before.contains(Path(path.begin(), path.end() - 1))) {
      refuse("but not the path to its parent before it");
    }
    if (!before.insert(path).second) refuse("twice");
  }
}

void check_kind(const DrafterConfig& config, const std::string& drafter) {
  if (config.kind == DrafterKind::kRecurrent) {
    check(config.num_heads == 1 && config.choices.empty(), "a ReDrafter head with Medusa's keys");
    return;
  }
  check_size(config.num_heads, 1, kMaxDraftDepth, "medusa_num_heads", drafter);
  check(config.exit_dim == config.hidden_size && !config.rnn,
        "a Medusa head with ReDrafter's keys");
  check_choices(config, drafter);
}

}  // namespace

std::string_view kind_name(DrafterKind kind) {
  return kind == DrafterKind::kMedusa ? "Medusa" : "ReDrafter";
}

std::string block_name(const DrafterConfig& config, std::int64_t head, std::int64_t layer) {
  return config.kind == DrafterKind::kMedusa ? fmt::format("{}.{}.linear", head, layer)
                                             : fmt::format("lm_head.{}.linear", layer);
}

std::string output_name(const DrafterConfig& config, std::int64_t head) {
  return config.kind == DrafterKind::kMedusa ? fmt::format("{}.{}", head, config.num_draft_layers)
                                             : fmt::format("lm_head.{}", config.num_draft_layers);
}

std::vector<HeadLinearShape> linears_of(const DrafterConfig& config) {
  const std::int64_t hidden = config.hidden_size, exit = config.exit_dim;
  std::vector<HeadLinearShape> linears;
  if (config.rnn) {
    linears.push_back({"rnn_u", hidden, hidden, true});
    linears.push_back({"rnn_w", hidden, hidden, false});
  }
  if (config.has_input_projection()) linears.push_back({"input_proj", exit, 2 * hidden, true});
  for (std::int64_t head = 0; head < config.num_heads; ++head) {
    for (std::int64_t layer = 0; layer < config.num_draft_layers; ++layer) {
      linears.push_back({block_name(config, head, layer), exit, exit, true});
    }
    if (config.tied_head) continue;
    linears.push_back({output_name(config, head), config.num_outputs(), exit, false});
  }
  return linears;
}

bool is_output(const DrafterConfig& config, std::string_view name) {
  for (std::int64_t head = 0; head < config.num_heads; ++head) {
    if (name == output_name(config, head)) return true;
  }
  return false;
}

void check_config(const DrafterConfig& config, const std::string& drafter) {
  check_size(config.vocab_size, 1, kMaxVocab, "vocab_size", drafter);
  check_size(config.hidden_size, 1, kMaxWidth, "hidden_size", drafter);
  check_size(config.exit_dim, 1, kMaxWidth, "exit_dim", drafter);
  const bool medusa = config.kind == DrafterKind::kMedusa;
  check_size(config.num_draft_layers, 0, kMaxLayers,
             medusa ? "medusa_num_layers" : "num_draft_layers", drafter);
  std::int32_t before = -1;
  for (const std::int32_t token : config.draft_vocab) {
    if (token <= before || token >= config.vocab_size) {
      throw ConfigError(
          "{}: \"draft_vocab\" has {} after {}, expected ascending ids below vocab_size {}",
          drafter, token, before, config.vocab_size);
    }
    before = token;
  }
  if (config.tied_head && config.exit_dim != config.hidden_size) {
    throw ConfigError("{}: \"tied_head\" needs exit_dim {} to be hidden_size {}", drafter,
                      config.exit_dim, config.hidden_size);
  }
  check_kind(config, drafter);
}

void check_fits(const DrafterConfig& config, const std::string& drafter, const BaseModel& base) {
  if (config.vocab_size == base.vocab_size && config.hidden_size == base.hidden_size) return;
  throw ConfigError(
      "the drafter {} was made for a vocabulary of {} and hidden states of {}, the model {} has {} "
      "and {}: give the drafter that was trained for this model",
      drafter, config.vocab_size, config.hidden_size, base.name, base.vocab_size, base.hidden_size);
}

}  // namespace paceline::drafter
