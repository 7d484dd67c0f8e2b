#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "drafter/config.h"
#include "runtime/training/training_log.h"

namespace paceline::runtime {

/// What the README of a trained drafter says.
struct ModelCard {
  std::string base_name;    ///< of the model that it drafts for
  std::string base_sha256;  ///< model_fingerprint()
  std::string numerics_id;  ///< that the teacher computed in
  drafter::DrafterConfig config;
  std::string weights;  ///< format of the matrices
  /// Where the conversations came from, e.g. {"answers.jsonl", 25000}.
  std::vector<std::pair<std::string, std::int64_t>> sources;
  std::int64_t training_conversations = 0;
  std::int64_t training_tokens = 0;  ///< of their answers
  std::int64_t held_out_conversations = 0;
  std::int64_t held_out_tokens = 0;
  double covered = 1;  ///< share of the held-out answers' tokens in the draft vocabulary
  std::vector<std::pair<std::string, std::string>> recipe;  ///< options and values
  std::uint64_t steps = 0;
  double positions = 0;  ///< trained on, each as often as it came
  double seconds = 0;
  double loss = 0;                            ///< of the last minibatch
  std::vector<LoggedEvaluation> evaluations;  ///< the last is the result's
};

/// As Markdown.
std::string model_card_text(const ModelCard& card);

}  // namespace paceline::runtime
