#include "runtime/training/model_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ModelCard card(int evaluations) {
  ModelCard card;
  card.base_name = "a-model";
  card.base_sha256 = "abc";
  card.config.vocab_size = 100;
  card.config.draft_vocab = {1, 2, 3};
  card.weights = "bf16";
  card.sources = {{"own.jsonl", 12}};
  card.recipe = {{"--depth", "5"}};
  for (int i = 1; i <= evaluations; ++i) {
    LoggedEvaluation evaluation;
    evaluation.positions = 1000 * i;
    evaluation.result.acceptance = {0.5, 0.25};
    card.evaluations.push_back(evaluation);
  }
  if (evaluations > 0) card.evaluations.back().shapes = {{"8x4", 2.125}};
  return card;
}

TEST(ModelCard, SaysWhatItIsFromWhatAndHowGood) {
  const std::string text = model_card_text(card(1));
  for (const char* said :
       {"# A drafter for a-model", "`abc`", "3 of 100 tokens", "own.jsonl: 12 conversations",
        "| 1 | 50.0 % |", "| 2 | 25.0 % |", "| 8x4 | 2.12 |", "| `--depth` | 5 |",
        "paceline generate --model a-model --drafter"}) {
    EXPECT_THAT(text, HasSubstr(said));
  }
}

TEST(ModelCard, TablesAtMostTenEvaluationsTheLastAmongThem) {
  const std::string text = model_card_text(card(25));
  EXPECT_THAT(text, HasSubstr("| 25000 |"));
  EXPECT_THAT(text, HasSubstr("| 22000 |"));
  EXPECT_THAT(text, Not(HasSubstr("| 24000 |")));
  EXPECT_THAT(model_card_text(card(0)), Not(HasSubstr("positions seen")));
}

}  // namespace
}  // namespace paceline::runtime
