#include "runtime/job/answer.h"

#include <gtest/gtest.h>

#include "runtime/files/json.h"

namespace paceline::runtime {
namespace {

Tokenizer smollm2() {
  const std::filesystem::path path =
      std::filesystem::path(PACELINE_TEST_DATA) / "tokenizer" / "smollm2.json";
  return Tokenizer::parse(read_json(path), path.string());
}

TEST(StopStrings, CutWhereTheFirstOfThemBegins) {
  StopStrings stops({"END", "\n\n"});
  EXPECT_EQ(stops.find("one EN"), std::nullopt);
  EXPECT_EQ(stops.find("one EN\n"), std::nullopt);
  EXPECT_EQ(stops.find("one EN\n\nEND"), 6u);
}

TEST(StopStrings, FindWhatGrowsByteByByte) {
  const std::string text = "aabaabaaab";
  StopStrings stops({"aaab"});
  for (std::size_t length = 0; length < text.size(); ++length) {
    EXPECT_EQ(stops.find(text.substr(0, length)), std::nullopt) << length;
  }
  EXPECT_EQ(stops.find(text), 6u);
}

TEST(StopStrings, NoneNeverStop) {
  StopStrings stops({});
  EXPECT_EQ(stops.find("anything"), std::nullopt);
}

// Feeds a text's tokens one by one until the answer says that it is complete.
WorkResult grow(const Tokenizer& tokenizer, const std::string& text, WorkItem item) {
  GrowingAnswer answer(item, &tokenizer);
  const auto ids = tokenizer.encode_text(text);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool last = i + 1 == ids.size();
    answer.count_step();
    if (answer.push({0, ids[i], last ? EndReason::kLength : EndReason::kNone})) break;
  }
  return answer.take();
}

TEST(GrowingAnswer, TextGrowsWithItsTokens) {
  const Tokenizer tokenizer = smollm2();
  const std::string text = "Grüße, 世界! 👩‍🚀";
  WorkItem item;
  item.index = 7;
  const WorkResult result = grow(tokenizer, text, item);
  EXPECT_EQ(result.index, 7);
  EXPECT_EQ(result.text, text);
  EXPECT_EQ(result.token_ids, tokenizer.encode_text(text));
  EXPECT_EQ(result.end, EndReason::kLength);
  EXPECT_EQ(result.steps, static_cast<std::int64_t>(result.token_ids.size()));
  EXPECT_GT(result.ttft_ms, 0);
}

// Steps of one, three and two tokens: after the first of each, two accepted at depth 1, one at 2.
TEST(GrowingAnswer, CountsWhatWasAcceptedByDepth) {
  GrowingAnswer answer({}, nullptr);
  for (const int tokens : {1, 3, 2}) {
    answer.count_step();
    for (int i = 0; i < tokens; ++i) answer.push({0, 5, EndReason::kNone});
  }
  const WorkResult result = answer.take();
  EXPECT_EQ(result.steps, 3);
  EXPECT_EQ(result.accepted_at, (std::vector<std::int64_t>{2, 1}));
}

TEST(GrowingAnswer, AStopStringIsLeftOutButItsTokensAreKept) {
  const Tokenizer tokenizer = smollm2();
  WorkItem item;
  item.stop = {"three"};
  const WorkResult result = grow(tokenizer, "one two three four", item);
  EXPECT_EQ(result.text, "one two ");
  EXPECT_EQ(result.end, EndReason::kStop);
  const auto ids = tokenizer.encode_text("one two three four");
  ASSERT_LT(result.token_ids.size(), ids.size());
  EXPECT_TRUE(std::equal(result.token_ids.begin(), result.token_ids.end(), ids.begin()));
  EXPECT_NE(tokenizer.decode(result.token_ids, true).find("three"), std::string::npos);
}

TEST(GrowingAnswer, EndOfSequenceIsATokenButNoText) {
  const Tokenizer tokenizer = smollm2();
  const auto end = tokenizer.token_id("<|im_end|>");
  ASSERT_TRUE(end);
  GrowingAnswer answer({}, &tokenizer);
  for (const std::int32_t id : tokenizer.encode_text("Hi")) {
    EXPECT_FALSE(answer.push({0, id, EndReason::kNone}));
  }
  EXPECT_TRUE(answer.push({0, *end, EndReason::kStop}));
  const WorkResult result = answer.take();
  EXPECT_EQ(result.text, "Hi");
  EXPECT_EQ(result.token_ids.back(), *end);
}

TEST(GrowingAnswer, WithoutATokenizerThereAreOnlyIds) {
  GrowingAnswer answer({}, nullptr);
  EXPECT_FALSE(answer.push({0, 5, EndReason::kNone}));
  EXPECT_TRUE(answer.push({0, -1, EndReason::kNonFinite}));
  const WorkResult result = answer.take();
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.token_ids, (std::vector<std::int32_t>{5}));
  EXPECT_EQ(result.end, EndReason::kNonFinite);
}

}  // namespace
}  // namespace paceline::runtime
