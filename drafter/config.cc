#include "drafter/config.h"

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

constexpr std::int64_t kMaxVocab = std::int64_t{1} << 22;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMaxLayers = 64;

void check_size(std::int64_t value, std::int64_t least, std::int64_t most, const char* key,
                const std::string& drafter) {
  if (value < least || value > most) {
    throw ConfigError("{}: \"{}\" is {}, expected {} to {}", drafter, key, value, least, most);
  }
}

}  // namespace

void check_config(const DrafterConfig& config, const std::string& drafter) {
  check_size(config.vocab_size, 1, kMaxVocab, "vocab_size", drafter);
  check_size(config.hidden_size, 1, kMaxWidth, "hidden_size", drafter);
  check_size(config.exit_dim, 1, kMaxWidth, "exit_dim", drafter);
  check_size(config.num_draft_layers, 0, kMaxLayers, "num_draft_layers", drafter);
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
}

void check_fits(const DrafterConfig& config, const std::string& drafter, const BaseModel& base) {
  if (config.vocab_size == base.vocab_size && config.hidden_size == base.hidden_size) return;
  throw ConfigError(
      "the drafter {} was made for a vocabulary of {} and hidden states of {}, the model {} has {} "
      "and {}: give the drafter that was trained for this model",
      drafter, config.vocab_size, config.hidden_size, base.name, base.vocab_size, base.hidden_size);
}

}  // namespace paceline::drafter
