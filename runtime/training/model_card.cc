#include "runtime/training/model_card.h"

#include <fmt/format.h>

namespace paceline::runtime {
namespace {

/// One line for each that ends a tenth of the training, and the last: a table that can be read.
std::vector<const LoggedEvaluation*> tabled(const std::vector<LoggedEvaluation>& evaluations) {
  constexpr std::size_t kLines = 10;
  std::vector<const LoggedEvaluation*> lines;
  const std::size_t every = (evaluations.size() + kLines - 1) / kLines;
  for (std::size_t i = 0; i < evaluations.size(); ++i) {
    const std::size_t left = evaluations.size() - 1 - i;
    if (left % every == 0) lines.push_back(&evaluations[i]);
  }
  return lines;
}

std::string head_text(const ModelCard& card) {
  const drafter::DrafterConfig& config = card.config;
  std::string text = fmt::format(
      "A ReDrafter head (Cheng et al. 2024) in the format of Apple's ml-recurrent-drafter: hidden "
      "size {}, {}, {} residual blocks of width {}, {} of {} tokens can be drafted",
      config.hidden_size, config.rnn ? "recurrent state" : "state that sums embeddings",
      config.num_draft_layers, config.exit_dim, config.num_outputs(), config.vocab_size);
  if (!config.draft_vocab.empty()) {
    text += fmt::format(" ({:.1f} % of the held-out answers' tokens)", 100 * card.covered);
  }
  return text + fmt::format(", weights in {}.\n", card.weights);
}

std::string data_text(const ModelCard& card) {
  std::string text = "## Data\n\n";
  for (const auto& [name, conversations] : card.sources) {
    text += fmt::format("- {}: {} conversations\n", name, conversations);
  }
  text += fmt::format(
      "\nTrained on {} conversations with {} answer tokens. Held out, whole and never trained on: "
      "{} conversations with {} answer tokens.\n\n",
      card.training_conversations, card.training_tokens, card.held_out_conversations,
      card.held_out_tokens);
  return text;
}

std::string result_text(const ModelCard& card) {
  std::string text = fmt::format(
      "## Result\n\n{} steps over {:.0f} positions in {:.0f} minutes; loss of the last minibatch "
      "{:.4f}.\n\n",
      card.steps, card.positions, card.seconds / 60, card.loss);
  if (card.evaluations.empty()) return text;
  const LoggedEvaluation& last = card.evaluations.back();
  text +=
      fmt::format("On the held-out answers, verified greedily: loss {:.4f}.\n\n", last.result.loss);
  text += "| depth | accepted, of those accepted so far |\n|---|---|\n";
  for (std::size_t depth = 0; depth < last.result.acceptance.size(); ++depth) {
    text += fmt::format("| {} | {:.1f} % |\n", depth + 1, 100 * last.result.acceptance[depth]);
  }
  if (!last.shapes.empty()) {
    text += "\n| beams x tokens | tokens per step |\n|---|---|\n";
    for (const auto& [shape, tokens] : last.shapes) {
      text += fmt::format("| {} | {:.2f} |\n", shape, tokens);
    }
  }
  text +=
      "\nOn the way (tokens per step of one chain, and with the best of the 8 likeliest tokens "
      "at each depth, which no beam search exceeds):\n\n"
      "| positions seen | loss | chain | best of 8 |\n|---|---|---|---|\n";
  for (const LoggedEvaluation* line : tabled(card.evaluations)) {
    text +=
        fmt::format("| {:.0f} | {:.4f} | {:.3f} | {:.3f} |\n", line->positions, line->result.loss,
                    line->result.tokens_per_step.front(), line->result.tokens_per_step.back());
  }
  return text + "\n";
}

std::string recipe_text(const ModelCard& card) {
  std::string text = "## Recipe\n\n| option | value |\n|---|---|\n";
  for (const auto& [option, value] : card.recipe) {
    text += fmt::format("| `{}` | {} |\n", option, value);
  }
  return text + "\n";
}

}  // namespace

std::string model_card_text(const ModelCard& card) {
  return fmt::format("# A drafter for {}\n\n", card.base_name) + head_text(card) +
         fmt::format(
             "\nIt guesses; the model decides: with any drafter the tokens are the model's "
             "own.\n\n```\nmpirun -n 2 paceline generate --model {} --drafter DIR --draft "
             "8x4 ...\n```\n\nMade for the model with fingerprint `{}`, which taught it in "
             "`{}`.\n\n",
             card.base_name, card.base_sha256, card.numerics_id) +
         result_text(card) + data_text(card) + recipe_text(card);
}

}  // namespace paceline::runtime
