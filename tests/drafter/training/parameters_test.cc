#include "drafter/training/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "drafter/training/trained_weights.h"
#include "kernels/core/error.h"
#include "tests/drafter/training/random_numbers.h"

namespace paceline::drafter {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

DrafterConfig config_of(std::int64_t exit_dim, std::int64_t layers, bool rnn = true) {
  DrafterConfig config;
  config.vocab_size = 12;
  config.hidden_size = 4;
  config.exit_dim = exit_dim;
  config.num_draft_layers = layers;
  config.rnn = rnn;
  return config;
}

std::vector<std::string> names_of(const DrafterConfig& config) {
  std::vector<std::string> names;
  for (const TensorPlace& place : layout_of(config).tensors) names.push_back(place.name);
  return names;
}

TEST(Parameters, AreNamedAsInApplesFormat) {
  EXPECT_THAT(names_of(config_of(8, 2)),
              ElementsAre("rnn_u.weight", "rnn_u.bias", "rnn_w.weight", "lm_head.0.linear.weight",
                          "lm_head.0.linear.bias", "lm_head.1.linear.weight",
                          "lm_head.1.linear.bias", "lm_head.2.weight"));
  EXPECT_THAT(names_of(config_of(6, 0, false)),
              ElementsAre("input_proj.weight", "input_proj.bias", "lm_head.0.weight"));
  DrafterConfig tied = config_of(4, 1, false);
  tied.tied_head = true;
  EXPECT_THAT(names_of(tied), ElementsAre("input_proj.weight", "input_proj.bias",
                                          "lm_head.0.linear.weight", "lm_head.0.linear.bias"));
}

TEST(Parameters, OfMedusaAreNamedAsInItsFormat) {
  DrafterConfig medusa = config_of(4, 1, false);
  medusa.kind = DrafterKind::kMedusa;
  medusa.num_heads = 2;
  EXPECT_THAT(names_of(medusa), ElementsAre("0.0.linear.weight", "0.0.linear.bias", "0.1.weight",
                                            "1.0.linear.weight", "1.0.linear.bias", "1.1.weight"));
  // Every head starts as the base: identity blocks and its output rows.
  RandomNumbers random(1);
  const std::vector<float> base = random.vector(12 * 4);
  HeadParameters head(medusa);
  head.initialize(5, const_matrix(base, 4));
  for (const char* name : {"0.1.weight", "1.1.weight"}) {
    const std::span<const float> output = head.tensor(name);
    EXPECT_EQ(std::vector<float>(output.begin(), output.end()), base);
  }
  EXPECT_THAT(head.tensor("1.0.linear.weight"), Each(0));

  medusa.tied_head = true;
  EXPECT_THAT(names_of(medusa), ElementsAre("0.0.linear.weight", "0.0.linear.bias",
                                            "1.0.linear.weight", "1.0.linear.bias"));
  const HeadParameters tied(medusa);
  EXPECT_EQ(kernels::to_fp32(TrainedWeights(tied, const_matrix(base, 4)).matrix("1.1", 12, 4)),
            base);
}

TEST(Parameters, LieOneBehindTheOther) {
  DrafterConfig config = config_of(6, 1);
  config.draft_vocab = {1, 3, 9};
  const HeadLayout layout = layout_of(config);
  std::int64_t end = 0;
  for (const TensorPlace& place : layout.tensors) {
    EXPECT_EQ(place.offset, end);
    EXPECT_EQ(place.decays, place.shape.size() == 2) << place.name;
    end += place.size;
  }
  EXPECT_EQ(layout.size, end);
  EXPECT_THAT(layout.at("input_proj.weight").shape, ElementsAre(6, 8));
  EXPECT_THAT(layout.at("lm_head.1.weight").shape, ElementsAre(3, 6));
  EXPECT_THROW(layout.at("lm_head.0.weight"), FatalError);
}

TEST(Parameters, StartFromTheBasesOutputAndIdentityBlocks) {
  RandomNumbers random(1);
  const std::vector<float> base = random.vector(12 * 4);
  for (const std::int64_t exit_dim : {8, 6, 4, 3}) {
    HeadParameters head(config_of(exit_dim, 1));
    head.initialize(5, const_matrix(base, 4));
    const Matrix output = head.tensors().exits[0].output;
    for (std::int64_t r = 0; r < 12; ++r) {
      for (std::int64_t c = 0; c < exit_dim; ++c) {
        EXPECT_EQ(output.row(r)[c], c < 4 ? base[r * 4 + c] : 0);
      }
    }
    EXPECT_THAT(head.tensor("lm_head.0.linear.weight"), Each(0));
    EXPECT_THAT(head.tensor("rnn_u.bias"), Each(0));
    if (exit_dim == 8) continue;
    // x_0 begins with the hidden state, and reads the state.
    const Matrix projection = head.tensors().input_proj.weight;
    for (std::int64_t r = 0; r < exit_dim; ++r) {
      for (std::int64_t c = 0; c < 4; ++c) EXPECT_EQ(projection.row(r)[c], r == c ? 1 : 0);
    }
    EXPECT_NE(projection.row(0)[4], 0);
  }
}

TEST(Parameters, RandomWeightsAreBoundedAndTheSeeds) {
  const std::vector<float> base(12 * 4);
  const auto recurrence = [&](std::uint64_t seed) {
    HeadParameters head(config_of(8, 0));
    head.initialize(seed, const_matrix(base, 4));
    const auto u = head.tensor("rnn_u.weight"), w = head.tensor("rnn_w.weight");
    std::vector<float> both(u.begin(), u.end());
    both.insert(both.end(), w.begin(), w.end());
    return both;
  };
  const std::vector<float> first = recurrence(1);
  EXPECT_THAT(first, Each(::testing::Truly([](float x) { return std::abs(x) < 0.5f; })));
  EXPECT_GT(*std::max_element(first.begin(), first.end()), 0.3f);
  EXPECT_LT(*std::min_element(first.begin(), first.end()), -0.3f);
  EXPECT_NE(std::vector(first.begin(), first.begin() + 16),
            std::vector(first.begin() + 16, first.end()));
  EXPECT_EQ(recurrence(1), first);
  EXPECT_NE(recurrence(2), first);
}

TEST(Parameters, RefuseWhatCannotBeTrained) {
  DrafterConfig config = config_of(8, 1);
  config.exit_dim = 0;
  EXPECT_THROW(HeadParameters{config}, ConfigError);
  HeadParameters head(config_of(8, 1));
  const std::vector<float> base(11 * 4);
  EXPECT_THROW(head.initialize(1, const_matrix(base, 4)), FatalError);
}

TEST(Parameters, AreWeightsToDraftWith) {
  RandomNumbers random(2);
  const std::vector<float> base = random.vector(12 * 4);
  HeadParameters head(config_of(8, 1));
  head.initialize(3, const_matrix(base, 4));
  const TrainedWeights weights(head, const_matrix(base, 4));
  const std::span<const float> master = head.tensor("rnn_w.weight");
  EXPECT_EQ(kernels::to_fp32(weights.matrix("rnn_w", 4, 4)),
            std::vector<float>(master.begin(), master.end()));
  EXPECT_EQ(weights.vector("lm_head.0.linear.bias", 8), std::vector<float>(8));
  EXPECT_THROW(weights.matrix("rnn_w", 4, 5), ConfigError);
  EXPECT_THROW(weights.matrix("rnn_v", 4, 4), FatalError);
  head.values()[head.layout().at("rnn_w.weight").offset] = NAN;
  EXPECT_THROW(weights.matrix("rnn_w", 4, 4), ConfigError);

  DrafterConfig config = config_of(4, 0);
  config.tied_head = true;
  const HeadParameters tied(config);
  EXPECT_EQ(
      kernels::to_fp32(TrainedWeights(tied, const_matrix(base, 4)).matrix("lm_head.0", 12, 4)),
      base);
}

}  // namespace
}  // namespace paceline::drafter
