// A drafter's config.json from a stranger, of either kind: refused, or a head whose shapes are
// consistent and whose tree can be filled.

#include <cstdint>
#include <string_view>
#include <vector>

#include "drafter/medusa_tree.h"
#include "kernels/core/error.h"
#include "runtime/drafting/drafter_config.h"

using paceline::check;
using paceline::ConfigError;
using paceline::drafter::DrafterConfig;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const DrafterConfig config = paceline::runtime::parse_drafter_config(
        paceline::runtime::parse_json(text, "config.json"), "config.json");
    check(config.vocab_size > 0 && config.hidden_size > 0 && config.exit_dim > 0, "sizes");
    check(config.num_draft_layers >= 0 && config.num_draft_layers <= 64, "layers");
    check(config.num_outputs() > 0 && config.num_outputs() <= config.vocab_size, "outputs");
    for (std::int64_t row = 0; row < config.num_outputs() && row < 1000; ++row) {
      const std::int32_t token = config.token_of(static_cast<std::int32_t>(row));
      check(token >= 0 && token < config.vocab_size, "token {}", token);
    }
    check(config.num_heads >= 1 && config.num_heads <= 16, "heads");
    const std::vector<paceline::drafter::RankedToken> tokens{{1, -1, -1}, {2, -2, -2}};
    const std::vector depths(static_cast<std::size_t>(config.num_heads), tokens);
    const auto tree = paceline::drafter::chosen_tree(depths, config.choices);
    check(tree.size() <= std::ssize(config.choices), "choices");
    check(!config.tied_head || config.exit_dim == config.hidden_size, "a tied head");
  } catch (const ConfigError&) {
  }
  return 0;
}
