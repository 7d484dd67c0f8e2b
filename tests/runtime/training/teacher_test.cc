#include "runtime/training/teacher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <set>

#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/model/fixture_model.h"

namespace paceline::runtime {
namespace {

using drafter::DraftPosition;
using drafter::TeacherRows;
using ::testing::ElementsAre;
using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kHidden = 32;

Ids random_ids(std::size_t count, std::uint32_t seed) {
  Ids ids;
  for (std::size_t i = 0; i < count; ++i) {
    seed = seed * 1664525 + 1013904223;
    ids.push_back(static_cast<std::int32_t>(seed >> 16) % 150);
  }
  return ids;
}

/// `count` conversations of 2 to 60 tokens.
std::vector<Conversation> random_conversations(int count) {
  std::vector<Conversation> conversations;
  for (int i = 0; i < count; ++i) {
    const auto size = static_cast<std::size_t>(2 + i * 37 % 59);
    conversations.push_back({random_ids(size, static_cast<std::uint32_t>(i)), 1 + i % 20});
    Conversation& last = conversations.back();
    last.prompt_tokens = std::min<std::int32_t>(last.prompt_tokens, std::ssize(last.tokens) - 1);
  }
  return conversations;
}

/// One rank's teacher on the tiny model.
struct TeacherRank {
  TeacherRank(const SplitConversations& split, parallel::Communicator& communicator,
              TeacherOptions options = small_options(), std::int32_t rows = 24,
              std::int32_t pages = 3)
      : backend(kernels::make_cpu_backend({})),
        model("llama_gqa",
              {.limits = {.max_sequences = 1,
                          .max_rows = rows,
                          .page_size = kPageSize,
                          .num_pages = pages}},
              *backend, communicator),
        states(model.model(), *backend, model.cache(), rows),
        teacher(split, with_ranks(options, communicator), states) {}

  static TeacherOptions small_options() {
    TeacherOptions options;
    options.order = {.batch_positions = 32, .group_positions = 200, .window = 8, .seed = 1};
    options.depth = 3;
    return options;
  }
  static TeacherOptions with_ranks(TeacherOptions options, parallel::Communicator& communicator) {
    options.order.ranks_per_replica = communicator.size();
    options.rank = communicator.rank();
    return options;
  }
  TeacherRows minibatch(std::uint64_t index) {
    TeacherRows batch;
    teacher.minibatch(index, batch);
    return batch;
  }

  std::unique_ptr<kernels::Backend> backend;
  FixtureRank model;
  HiddenStates states;
  EngineTeacher teacher;
};

/// What the model says of a whole text, fed alone and at once.
std::vector<float> alone(const Conversation& text) {
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank rank("llama_gqa", {}, *backend, *single);
  const auto size = static_cast<std::int32_t>(text.tokens.size());
  const float* hidden = rank.model().forward(rows_of(text.tokens, 0, size), rank.cache().pool());
  return {hidden, hidden + size * kHidden};
}

void expect_equal(const TeacherRows& a, const TeacherRows& b) {
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.hidden, b.hidden);
  EXPECT_EQ(a.next_embedding, b.next_embedding);
  EXPECT_EQ(a.next_token, b.next_token);
  EXPECT_EQ(a.positions, b.positions);
}

class EngineTeacherTest : public testing::Test {
 protected:
  const std::vector<Conversation> conversations_ = random_conversations(40);
  const SplitConversations split_ = split_conversations(conversations_, 8);
  const std::unique_ptr<parallel::Communicator> single_ = parallel::make_single();
};

// The answer c d e f to the prompt a b, depth 2: rows are those of b, c, d, e; from b's the drafter
// reads c and guesses d, then e.
TEST(EngineTeacher, LaysAConversationOutAsTheHeaderSays) {
  const std::vector<Conversation> conversations{{{10, 11, 12, 13, 14, 15}, 2}, {{1, 2, 3}, 1}};
  SplitConversations split;
  split.training = {&conversations[0]};
  split.held_out = {&conversations[1]};
  const auto single = parallel::make_single();
  TeacherOptions options = TeacherRank::small_options();
  options.depth = 2;
  TeacherRank rank(split, *single, options);
  const TeacherRows batch = rank.minibatch(0);
  EXPECT_EQ(batch.rows, 4);
  EXPECT_THAT(batch.next_token, ElementsAre(12, 13, 14, 15));
  EXPECT_THAT(batch.positions,
              ElementsAre(DraftPosition{0, 2}, DraftPosition{1, 2}, DraftPosition{2, 1}));
  const std::vector<float> hidden = alone(conversations[0]);
  EXPECT_EQ(batch.hidden,
            std::vector<float>(hidden.begin() + kHidden, hidden.begin() + 5 * kHidden));

  TeacherRows held;
  rank.teacher.held_out(0, held);
  EXPECT_THAT(held.next_token, ElementsAre(2, 3));
  EXPECT_THAT(held.positions, ElementsAre(DraftPosition{0, 1}, DraftPosition{1, 0}));
}

// Of the positions of an epoch all look one step ahead, about half of them two, a quarter three;
// other ones in the next epoch, the same ones whoever asks.
TEST_F(EngineTeacherTest, FewerPositionsLookFurther) {
  TeacherOptions options = TeacherRank::small_options();
  options.depth_share = 0.5;
  TeacherRank rank(split_, *single_, options), again(split_, *single_, options);
  const std::uint64_t epoch = rank.teacher.minibatches(1);
  std::array<std::vector<int>, 2> steps;
  std::array<int, 4> at_least{};
  for (std::uint64_t i = 0; i < 2 * epoch; ++i) {
    const TeacherRows batch = rank.minibatch(i);
    EXPECT_EQ(batch.positions, again.minibatch(i).positions);
    for (const DraftPosition& position : batch.positions) {
      steps[i / epoch].push_back(position.steps);
      for (int d = 1; d <= position.steps; ++d) ++at_least[static_cast<std::size_t>(d)];
    }
  }
  EXPECT_EQ(at_least[1], std::ssize(steps[0]) + std::ssize(steps[1]));
  // Within five standard deviations, and a few positions at the ends of texts.
  EXPECT_NEAR(at_least[2], 0.5 * at_least[1], 0.1 * at_least[1]);
  EXPECT_NEAR(at_least[3], 0.25 * at_least[1], 0.1 * at_least[1]);
  EXPECT_NE(steps[0], steps[1]);
}

TEST_F(EngineTeacherTest, HiddenStatesAreTheEnginesWhateverIsFedWithThem) {
  std::vector<FedText> fed;
  std::vector<float> expected;
  for (const Conversation& text : conversations_) {
    fed.push_back({text.tokens, text.prompt_tokens});
    const std::vector<float> hidden = alone(text);
    expected.insert(expected.end(), hidden.begin() + text.prompt_tokens * kHidden, hidden.end());
  }
  for (const auto& [rows, pages] : {std::pair(1, 2), std::pair(24, 3), std::pair(512, 64)}) {
    TeacherRank rank(split_, *single_, TeacherRank::small_options(), rows, pages);
    std::vector<float> hidden;
    rank.states.append(fed, hidden);
    EXPECT_EQ(hidden, expected) << rows << " rows at once";
  }
}

TEST_F(EngineTeacherTest, AMinibatchIsAFunctionOfItsIndexWithAndWithoutACache) {
  TeacherOptions cached = TeacherRank::small_options();
  cached.cache_bytes = 40'000;  // of 180 kB or so
  TeacherRank plain(split_, *single_);
  TeacherRank caching(split_, *single_, cached);
  const std::uint64_t two_epochs = plain.teacher.minibatches(2);
  for (std::uint64_t index = 0; index < two_epochs; ++index) {
    expect_equal(plain.minibatch(index), caching.minibatch(index));
  }
  expect_equal(plain.minibatch(3), caching.minibatch(3));
}

TEST_F(EngineTeacherTest, HoldsHiddenStatesAsBf16IfTheyAreRoundedAnyway) {
  TeacherOptions halves = TeacherRank::small_options();
  halves.bf16 = true;
  TeacherRank whole(split_, *single_);
  TeacherRank rounded(split_, *single_, halves);
  TeacherRows expected = whole.minibatch(1);
  for (float& value : expected.hidden) {
    value = kernels::bf16_to_fp32(kernels::fp32_to_bf16(value));
  }
  expect_equal(rounded.minibatch(1), expected);
}

// (tokens of the position's text from there on) of every position of an epoch.
std::multiset<Ids> epoch_positions(const SplitConversations& split, int ranks) {
  std::multiset<Ids> all;
  std::mutex mutex;
  parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
    TeacherRank rank(split, communicator);
    for (std::uint64_t index = 0; index < rank.teacher.minibatches(1); ++index) {
      const TeacherRows batch = rank.minibatch(index);
      EXPECT_EQ(std::ssize(batch.hidden), batch.rows * kHidden);
      EXPECT_EQ(std::ssize(batch.next_embedding), batch.rows * kHidden);
      const std::lock_guard lock(mutex);
      for (const DraftPosition& position : batch.positions) {
        const auto first = batch.next_token.begin() + position.row;
        all.insert(Ids(first, first + position.steps + 1));
      }
    }
  });
  return all;
}

TEST_F(EngineTeacherTest, TheRanksOfAReplicaTakeItsPositionsTogether) {
  const std::multiset<Ids> alone = epoch_positions(split_, 1);
  std::size_t positions = 0;
  for (const Conversation* text : split_.training) positions += text->answer_tokens() - 1;
  EXPECT_EQ(alone.size(), positions);
  EXPECT_EQ(epoch_positions(split_, 2), alone);
}

TEST_F(EngineTeacherTest, EachRankJudgesItsOwnHeldOutTexts) {
  std::mutex mutex;
  std::multiset<Ids> texts;
  parallel::run_ranks(3, [&](parallel::Communicator& communicator) {
    TeacherRank rank(split_, communicator);
    const std::lock_guard lock(mutex);
    for (int text = 0; text < rank.teacher.held_out_texts(); ++text) {
      TeacherRows rows;
      rank.teacher.held_out(text, rows);
      texts.insert(rows.next_token);
    }
    EXPECT_EQ(rank.teacher.held_out_of_replica().size(), 8u);
  });
  std::multiset<Ids> expected;
  for (const Conversation* text : split_.held_out) {
    expected.insert(Ids(text->answer().begin(), text->answer().end()));
  }
  EXPECT_EQ(texts, expected);
}

TEST_F(EngineTeacherTest, IdentityTellsDataAndOptionsApart) {
  const std::string identity = TeacherRank(split_, *single_).teacher.identity();
  EXPECT_EQ(TeacherRank(split_, *single_).teacher.identity(), identity);
  TeacherOptions other = TeacherRank::small_options();
  other.order.seed = 2;
  EXPECT_NE(TeacherRank(split_, *single_, other).teacher.identity(), identity);
  std::vector<Conversation> changed = conversations_;
  changed[7].tokens.back() ^= 1;
  EXPECT_NE(TeacherRank(split_conversations(changed, 8), *single_).teacher.identity(), identity);
}

TEST(SplitConversations, HoldsOutWholeConversationsWhateverTheirOrder) {
  std::vector<Conversation> conversations;
  for (std::int32_t i = 0; i < 1000; ++i) conversations.push_back({{i, 1, 2}, 1});
  const auto split = split_conversations(conversations, 128);
  EXPECT_EQ(split.held_out.size(), 1000u / 64);
  EXPECT_EQ(split.training.size(), 1000 - split.held_out.size());
  std::set<std::int32_t> held;
  for (const Conversation* text : split.held_out) held.insert(text->tokens[0]);
  for (const Conversation* text : split.training) EXPECT_FALSE(held.contains(text->tokens[0]));

  std::ranges::reverse(conversations);
  for (const Conversation* text : split_conversations(conversations, 128).held_out) {
    EXPECT_TRUE(held.contains(text->tokens[0]));
  }
}

TEST(SplitConversations, KeepsToItsBounds) {
  std::vector<Conversation> conversations;
  for (std::int32_t i = 0; i < 1000; ++i) conversations.push_back({{i, 1, 2}, 1});
  const auto held_out = [&](std::size_t count, std::int64_t most) {
    return split_conversations(std::span(conversations).first(count), most).held_out.size();
  };
  EXPECT_EQ(held_out(1000, 10), 10u);
  EXPECT_EQ(held_out(100, 128), 8u);
  EXPECT_EQ(held_out(9, 128), 4u);
  EXPECT_EQ(held_out(2, 128), 1u);
  EXPECT_THROW(held_out(1, 128), ConfigError);
}

}  // namespace
}  // namespace paceline::runtime
