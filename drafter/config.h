#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace paceline::drafter {

/// A ReDrafter head (Cheng et al. 2024, "Recurrent Drafter for Fast Speculative Decoding in Large
/// Language Models"), as Apple's checkpoint format describes it, and two keys of our own.
struct DrafterConfig {
  std::int64_t vocab_size = 0;        ///< of the base model
  std::int64_t hidden_size = 0;       ///< of the base model, and of the recurrent state
  std::int64_t exit_dim = 0;          ///< width of the residual blocks and of the output matrix
  std::int64_t num_draft_layers = 0;  ///< residual blocks; 0: none
  bool rnn = false;  ///< state_t = silu(W E(token_t) + U state_{t-1} + b); else E(token_t) + state
  /// Our own: the tokens that the head can draft, ascending; row i of the output matrix is that of
  /// draft_vocab[i]. Empty: all of them.
  std::vector<std::int32_t> draft_vocab;
  /// Our own: the output matrix is the base model's, its rows of `draft_vocab`; needs exit_dim ==
  /// hidden_size.
  bool tied_head = false;

  /// The head's input is concat(hidden, state); it is projected if it is not as wide as the blocks.
  bool has_input_projection() const { return exit_dim != 2 * hidden_size; }
  /// Rows of the output matrix.
  std::int64_t num_outputs() const {
    return draft_vocab.empty() ? vocab_size : static_cast<std::int64_t>(draft_vocab.size());
  }
  /// The model's id of what output row `row` stands for.
  std::int32_t token_of(std::int32_t row) const {
    return draft_vocab.empty() ? row : draft_vocab[row];
  }
};

/// What a drafter must know of the model that it drafts for.
struct BaseModel {
  std::string name;  ///< for messages
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
};

/// Throws ConfigError naming `drafter` (its file or directory) and the value unless sizes are
/// positive and bounded, `draft_vocab` ascends within the vocabulary, and a tied head can be tied.
void check_config(const DrafterConfig& config, const std::string& drafter);

/// Throws ConfigError naming both unless the drafter was made for a model of these sizes.
void check_fits(const DrafterConfig& config, const std::string& drafter, const BaseModel& base);

}  // namespace paceline::drafter
