#include "drafter/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

DrafterConfig valid() {
  return {.vocab_size = 96,
          .hidden_size = 32,
          .exit_dim = 32,
          .num_draft_layers = 2,
          .rnn = true,
          .draft_vocab = {2, 3, 95},
          .tied_head = true};
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(DrafterConfig, KnowsItsShapes) {
  DrafterConfig config = valid();
  check_config(config, "d");
  EXPECT_TRUE(config.has_input_projection());
  EXPECT_EQ(config.num_outputs(), 3);
  EXPECT_EQ(config.token_of(1), 3);
  config.exit_dim = 64;
  config.draft_vocab.clear();
  EXPECT_FALSE(config.has_input_projection());
  EXPECT_EQ(config.num_outputs(), 96);
  EXPECT_EQ(config.token_of(1), 1);
}

DrafterConfig medusa() {
  DrafterConfig config = valid();
  config.rnn = false;
  config.tied_head = false;
  config.kind = DrafterKind::kMedusa;
  config.num_heads = 3;
  config.num_draft_layers = 1;
  return config;
}

std::vector<std::string> names(const DrafterConfig& config) {
  std::vector<std::string> names;
  for (const HeadLinearShape& linear : linears_of(config)) names.push_back(linear.name);
  return names;
}

TEST(DrafterConfig, KnowsItsLayers) {
  EXPECT_THAT(names(valid()),
              ElementsAre("rnn_u", "rnn_w", "input_proj", "lm_head.0.linear", "lm_head.1.linear"));
  DrafterConfig config = medusa();
  check_config(config, "d");
  EXPECT_FALSE(config.has_input_projection());
  EXPECT_THAT(names(config),
              ElementsAre("0.0.linear", "0.1", "1.0.linear", "1.1", "2.0.linear", "2.1"));
  EXPECT_EQ(linears_of(config)[1].n, 3);
  EXPECT_EQ(linears_of(config)[1].k, 32);
  EXPECT_TRUE(is_output(config, "2.1"));
  EXPECT_FALSE(is_output(config, "3.1"));
  config.tied_head = true;
  EXPECT_THAT(names(config), ElementsAre("0.0.linear", "1.0.linear", "2.0.linear"));
  EXPECT_EQ(kind_name(config.kind), "Medusa");
  EXPECT_EQ(kind_name(valid().kind), "ReDrafter");
}

TEST(DrafterConfig, RefusesATreeThatMedusasHeadsCannotFill) {
  const auto refused = [](std::vector<std::vector<std::int32_t>> choices) {
    DrafterConfig config = medusa();
    config.choices = std::move(choices);
    return refusal([&] { check_config(config, "m/config.json"); });
  };
  EXPECT_EQ(refused({{0}, {49}, {0, 0}, {49, 3}, {0, 0, 2}}), "nothing was refused");
  EXPECT_EQ(
      refused({{0}, {1, 0}}),
      "m/config.json: \"medusa_choices\" has [1, 0], but not the path to its parent before it");
  EXPECT_THAT(refused({{0, 0}, {0}}), HasSubstr("but not the path to its parent"));
  EXPECT_THAT(refused({{0}, {0}}), HasSubstr("has [0], twice"));
  EXPECT_THAT(refused({{50}}), HasSubstr("has [50], expected ranks from 0 to 49"));
  EXPECT_THAT(refused({{-1}}), HasSubstr("expected ranks from 0"));
  EXPECT_THAT(refused({{}}), HasSubstr("a path of 0 ranks, expected 1 to 3, one a head"));
  EXPECT_THAT(refused({{0}, {0, 0}, {0, 0, 0}, {0, 0, 0, 0}}), HasSubstr("a path of 4 ranks"));
  EXPECT_THAT(refused(std::vector<std::vector<std::int32_t>>(1025, {0})),
              HasSubstr("has 1025 paths, expected at most 1024"));
  DrafterConfig config = medusa();
  config.num_heads = 17;
  EXPECT_THAT(refusal([&] { check_config(config, "m"); }),
              HasSubstr("\"medusa_num_heads\" is 17, expected 1 to 16"));
  config.num_draft_layers = 65;
  EXPECT_THAT(refusal([&] { check_config(config, "m"); }), HasSubstr("\"medusa_num_layers\""));
}

TEST(DrafterConfig, RefusesWhatNoHeadCanBe) {
  const auto refused = [](const std::function<void(DrafterConfig&)>& change) {
    DrafterConfig config = valid();
    change(config);
    return refusal([&] { check_config(config, "drafts/config.json"); });
  };
  EXPECT_EQ(refused([](auto& c) { c.vocab_size = 0; }),
            "drafts/config.json: \"vocab_size\" is 0, expected 1 to 4194304");
  EXPECT_THAT(refused([](auto& c) { c.hidden_size = -4; }), HasSubstr("\"hidden_size\" is -4"));
  EXPECT_THAT(refused([](auto& c) { c.exit_dim = 1 << 21; }), HasSubstr("\"exit_dim\" is 2097152"));
  EXPECT_THAT(refused([](auto& c) { c.num_draft_layers = 65; }), HasSubstr("is 65, expected 0"));
  EXPECT_THAT(refused([](auto& c) { c.draft_vocab = {3, 3}; }), HasSubstr("has 3 after 3"));
  EXPECT_THAT(refused([](auto& c) { c.draft_vocab = {96}; }), HasSubstr("below vocab_size 96"));
  EXPECT_THAT(refused([](auto& c) { c.draft_vocab = {-2}; }), HasSubstr("has -2"));
  EXPECT_THAT(refused([](auto& c) { c.exit_dim = 64; }),
              HasSubstr("\"tied_head\" needs exit_dim 64 to be hidden_size 32"));
}

TEST(DrafterConfig, RefusesAnotherModelsDrafterNamingBoth) {
  const DrafterConfig config = valid();
  check_fits(config, "drafts", {"smol", 96, 32});
  for (const BaseModel& base : {BaseModel{"smol", 97, 32}, BaseModel{"smol", 96, 64}}) {
    const std::string message = refusal([&] { check_fits(config, "drafts", base); });
    EXPECT_THAT(message,
                HasSubstr("drafts was made for a vocabulary of 96 and hidden states of 32"));
    EXPECT_THAT(message, HasSubstr("smol"));
  }
}

}  // namespace
}  // namespace paceline::drafter
