#include "drafter/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

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
