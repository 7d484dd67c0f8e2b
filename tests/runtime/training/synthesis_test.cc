#include "runtime/training/synthesis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "kernels/core/error.h"
#include "runtime/job/replica.h"
#include "tests/runtime/training/chat_model.h"

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

/// Stands for the engine: a user turn is a word that its seed picks of a few (so that some come
/// twice), is empty, or goes on to its limit; an answer is of 1 to 20 tokens.
WorkResult invented(const WorkItem& item) {
  WorkResult result;
  result.index = item.index;
  result.end = EndReason::kStop;
  const std::uint64_t pick = item.seed % 97;
  if (item.index % 2 == 0) {
    EXPECT_EQ(item.temperature, 1.0f);
    EXPECT_EQ(item.max_new_tokens, Synthesis::kUserTurnTokens);
    if (pick < 10) result.end = EndReason::kLength;
    if (pick >= 20) result.text = fmt::format(" word {}\n", pick % 40);
    return result;
  }
  for (std::uint64_t i = 0; i <= (item.seed + item.prompt.size()) % 20; ++i) {
    result.token_ids.push_back(static_cast<std::int32_t>((item.seed + i) % 150));
  }
  return result;
}

class SynthesisTest : public testing::Test {
 protected:
  Synthesis::Options options(std::int64_t tokens, bool resume = false) const {
    return {.synthesize_tokens = tokens,
            .answer_tokens = 20,
            .longest = 512,
            .seed = 3,
            .resume = resume};
  }
  std::vector<WorkItem> given() const {
    std::vector<WorkItem> items(3);
    for (std::int32_t i = 0; i < 3; ++i) {
      items[static_cast<std::size_t>(i)].prompt = {5, 6, i};
      items[static_cast<std::size_t>(i)].max_new_tokens = 9;
    }
    return items;
  }
  Synthesis open(const Synthesis::Options& options, std::vector<WorkItem> prompts) {
    return {model_.encoder(), std::move(prompts), options, directory_.path() / "data", {}};
  }

  /// Answers `at_once` requests at a time, the last first; stops behind `most` of them.
  static void answer(Synthesis& synthesis, std::size_t at_once, int most = 1 << 30) {
    for (int done = 0; done < most;) {
      std::vector<WorkItem> items = synthesis.next(at_once);
      if (items.empty()) {
        ASSERT_TRUE(synthesis.exhausted());
        return;
      }
      std::ranges::reverse(items);
      for (const WorkItem& item : items) {
        if (done++ < most) synthesis.complete(invented(item));
      }
    }
  }

  ChatModel model_;
  TemporaryDirectory directory_;
};

TEST_F(SynthesisTest, GivesTheSameConversationsWhateverTheBatch) {
  std::vector<Conversation> expected;
  for (const std::size_t at_once : {1, 7, 50}) {
    std::filesystem::remove_all(directory_.path() / "data");
    Synthesis synthesis = open(options(300), given());
    answer(synthesis, at_once);
    const std::vector<Conversation> conversations = synthesis.take();
    if (expected.empty()) expected = conversations;
    EXPECT_EQ(conversations, expected) << at_once;
  }
  std::int64_t tokens = 0;
  std::set<Sha256::Digest> prompts;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(prompts.insert(prompt_digest(expected[i].prompt())).second);
    if (i < 3) {
      EXPECT_EQ(expected[i].tokens[2], static_cast<std::int32_t>(i));  // the given ones first
      continue;
    }
    EXPECT_LT(tokens, 300);  // no conversation too many
    tokens += expected[i].answer_tokens();
    EXPECT_THAT(model_.encoder().tokenizer()->decode(expected[i].prompt(), false),
                ::testing::MatchesRegex("<.im_start.>user\nword [0-9]+<.im_end.>\n"
                                        "<.im_start.>assistant\n"));
  }
  EXPECT_GE(tokens, 300);
}

TEST_F(SynthesisTest, GoesOnWhereItWasInterrupted) {
  std::vector<Conversation> expected;
  {
    Synthesis synthesis = open(options(200), given());
    answer(synthesis, 8);
    expected = synthesis.take();
  }
  for (const int stop : {1, 20, 60}) {
    std::filesystem::remove_all(directory_.path() / "data");
    {
      Synthesis synthesis = open(options(200), given());
      answer(synthesis, 8, stop);
    }
    std::ofstream(directory_.path() / "data" / "conversations.jsonl", std::ios::app) << "{\"pro";
    Synthesis synthesis = open(options(200, true), given());
    answer(synthesis, 5);
    EXPECT_EQ(synthesis.take(), expected) << stop;
  }
  // What is complete needs nothing more of the engine.
  Synthesis complete = open(options(200, true), given());
  EXPECT_TRUE(complete.exhausted());
  EXPECT_EQ(complete.take(), expected);
}

TEST_F(SynthesisTest, SamplesEveryFourthAnswer) {
  Synthesis synthesis = open(options(400), {});
  std::vector<float> temperatures;
  while (!synthesis.exhausted()) {
    for (const WorkItem& item : synthesis.next(1)) {
      if (item.index % 2 == 1) temperatures.push_back(item.temperature);
      synthesis.complete(invented(item));
    }
  }
  temperatures.resize(8);
  EXPECT_EQ(temperatures, (std::vector<float>{0, 0, 0, 0.7f, 0, 0, 0, 1.0f}));
}

TEST_F(SynthesisTest, AnswersGivenPromptsAlone) {
  Synthesis synthesis = open(options(0), given());
  answer(synthesis, 2);
  EXPECT_EQ(synthesis.take().size(), 3u);
  EXPECT_EQ(directory_.read("data/user_turns.jsonl"), "");
  EXPECT_EQ(synthesis.answered(), 3);
}

TEST_F(SynthesisTest, LeavesOutAnswersThatAreNoNumbers) {
  Synthesis synthesis = open(options(0), given());
  for (const WorkItem& item : synthesis.next(3)) {
    WorkResult result = invented(item);
    if (item.prompt.back() == 1) result.end = EndReason::kNonFinite;
    synthesis.complete(result);
  }
  EXPECT_EQ(synthesis.take().size(), 2u);
}

TEST_F(SynthesisTest, RefusesOtherDataAndDataThatItWasNotAskedToResume) {
  {
    Synthesis synthesis = open(options(0), given());
    answer(synthesis, 3);
  }
  const auto refusal = [&](const Synthesis::Options& with, std::vector<WorkItem> prompts) {
    try {
      open(with, std::move(prompts));
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal(options(0), given()), HasSubstr("already holds data"));
  std::vector<WorkItem> fewer = given();
  fewer.pop_back();
  EXPECT_THAT(refusal(options(0, true), fewer), HasSubstr("input_sha256"));
  Synthesis::Options other = options(0, true);
  other.answer_tokens = 21;
  EXPECT_THAT(refusal(other, given()), HasSubstr("answer_tokens"));
  EXPECT_EQ(refusal(options(0, true), given()), "accepted");
}

TEST_F(SynthesisTest, EndsWhereAModelHasNothingNewToSay) {
  Synthesis synthesis = open(options(100), {});
  EXPECT_THROW(
      {
        while (!synthesis.exhausted()) {
          for (const WorkItem& item : synthesis.next(64)) {
            WorkResult result;
            result.index = item.index;
            result.end = EndReason::kLength;
            synthesis.complete(result);
          }
        }
      },
      FatalError);
}

/// A replica's work, straight from a synthesis.
class SynthesisWork : public WorkSource {
 public:
  explicit SynthesisWork(Synthesis& synthesis) : synthesis_(synthesis) {}
  std::vector<WorkItem> take(std::size_t wanted) override { return synthesis_.next(wanted); }
  bool exhausted() const override { return synthesis_.exhausted(); }
  void report(WorkResult result) override { synthesis_.complete(result); }

 private:
  Synthesis& synthesis_;
};

TEST_F(SynthesisTest, ByTheEngineTheBatchDoesNotMatterEither) {
  std::vector<Conversation> expected;
  for (const std::int32_t sequences : {2, 8}) {
    std::filesystem::remove_all(directory_.path() / "data");
    Synthesis synthesis = open(options(150), given());
    const auto backend = kernels::make_cpu_backend({});
    const auto single = parallel::make_single();
    FixtureRank rank("llama_gqa",
                     {.limits = {.max_sequences = sequences,
                                 .max_rows = 64,
                                 .page_size = kPageSize,
                                 .num_pages = 64}},
                     *backend, *single);
    SynthesisWork work(synthesis);
    ReplicaLeader(rank.engine(), model_.encoder().tokenizer(), work).run();
    const std::vector<Conversation> conversations = synthesis.take();
    if (expected.empty()) expected = conversations;
    EXPECT_EQ(conversations, expected);
  }
  EXPECT_GT(expected.size(), 3u);
}

}  // namespace
}  // namespace paceline::runtime
