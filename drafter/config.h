#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace paceline::drafter {

enum class DrafterKind {
  /// ReDrafter (Cheng et al. 2024, "Recurrent Drafter for Fast Speculative Decoding in Large
  /// Language Models"), as Apple's checkpoint format describes it.
  kRecurrent,
  /// Medusa (Cai et al. 2024, "Medusa: Simple LLM Inference Acceleration Framework with Multiple
  /// Decoding Heads"): head i guesses the token of depth i + 1 from the base's hidden state alone.
  kMedusa,
};

/// "ReDrafter", "Medusa"
std::string_view kind_name(DrafterKind kind);

/// A draft head of either kind, with some keys of our own.
struct DrafterConfig {
  std::int64_t vocab_size = 0;   ///< of the base model
  std::int64_t hidden_size = 0;  ///< of the base model, and of the recurrent state
  /// Width of the residual blocks and of the output matrix; Medusa's are as wide as hidden.
  std::int64_t exit_dim = 0;
  std::int64_t num_draft_layers = 0;  ///< residual blocks of each head; 0: none
  bool rnn = false;  ///< state_t = silu(W E(token_t) + U state_{t-1} + b); else E(token_t) + state
  /// Our own: the tokens that the head can draft, ascending; row i of the output matrix is that of
  /// draft_vocab[i]. Empty: all of them.
  std::vector<std::int32_t> draft_vocab;
  /// Our own: the output matrix is the base model's, its rows of `draft_vocab`; needs exit_dim ==
  /// hidden_size.
  bool tied_head = false;

  DrafterKind kind = DrafterKind::kRecurrent;
  std::int64_t num_heads = 1;  ///< residual blocks and an output matrix each; ReDrafter has one
  /// Our own, Medusa only: the nodes of its tree, each as the path to it, parents before children.
  /// A path names the rank of its token among its head's candidates: {0, 2} is what the second head
  /// ranks third after what the first one ranks first. Empty: the most probable paths.
  std::vector<std::vector<std::int32_t>> choices = {};
  std::string base_model = {};  ///< Medusa only: what its config.json calls the base; may be empty

  /// ReDrafter's input is concat(hidden, state); it is projected if it is not as wide as the
  /// blocks.
  bool has_input_projection() const {
    return kind == DrafterKind::kRecurrent && exit_dim != 2 * hidden_size;
  }
  /// Rows of the output matrix.
  std::int64_t num_outputs() const {
    return draft_vocab.empty() ? vocab_size : static_cast<std::int64_t>(draft_vocab.size());
  }
  /// The model's id of what output row `row` stands for.
  std::int32_t token_of(std::int32_t row) const {
    return draft_vocab.empty() ? row : draft_vocab[row];
  }
};

/// A linear layer of a head: `name`.weight [n, k] and perhaps `name`.bias [n].
struct HeadLinearShape {
  std::string name;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool bias = false;
};

/// Names as in the kind's checkpoint format, without ".weight".
std::string block_name(const DrafterConfig& config, std::int64_t head, std::int64_t layer);
std::string output_name(const DrafterConfig& config, std::int64_t head);

/// The linear layers that a head has of its own: its recurrence and input projection, then of each
/// head the residual blocks and, unless it is tied, the output matrix.
std::vector<HeadLinearShape> linears_of(const DrafterConfig& config);

/// Whether `name` is an output matrix.
bool is_output(const DrafterConfig& config, std::string_view name);

/// What a drafter must know of the model that it drafts for.
struct BaseModel {
  std::string name;  ///< for messages
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
};

/// Throws ConfigError naming `drafter` (its file or directory) and the value unless sizes are
/// positive and bounded, `draft_vocab` ascends within the vocabulary, a tied head can be tied, and
/// `choices` are a tree that the heads can fill.
void check_config(const DrafterConfig& config, const std::string& drafter);

/// Throws ConfigError naming both unless the drafter was made for a model of these sizes.
void check_fits(const DrafterConfig& config, const std::string& drafter, const BaseModel& base);

}  // namespace paceline::drafter
