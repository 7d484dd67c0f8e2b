#include "runtime/training/conversations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "tests/runtime/training/chat_model.h"

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

class ConversationReaderTest : public testing::Test {
 protected:
  ConversationReader reader(std::int64_t longest = 512) const {
    RequestRules rules;
    rules.vocab_size = 160;
    rules.defaults.max_tokens = 20;
    return {model_.encoder(), rules, {.longest = longest, .eos_token_ids = {ChatModel::kEnd}}};
  }
  /// What the file `text` is refused with.
  std::string refusal(const std::string& text) {
    ConversationReader reading = reader();
    try {
      reading.read(directory_.write("data.jsonl", text));
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  }
  Ids ids(const std::string& text) const { return model_.ids(text); }
  static Conversation conversation(const Ids& prompt, const Ids& answer) {
    Conversation whole{prompt, static_cast<std::int32_t>(prompt.size())};
    whole.tokens.insert(whole.tokens.end(), answer.begin(), answer.end());
    return whole;
  }

  ChatModel model_;
  TemporaryDirectory directory_;
};

TEST_F(ConversationReaderTest, TakesFinishedConversationsAsTheyAre) {
  ConversationReader reading = reader();
  reading.read(directory_.write("data.jsonl", R"({"prompt":[5,6],"completion":[7,159]}
{"prompt": "ab", "completion": "cd"}

{"messages": [{"role": "user", "content": "hi"}], "completion": [9]}
{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}
)"));
  const std::string asked = "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_THAT(
      reading.finished(),
      ElementsAre(conversation({5, 6}, {7, 159}), conversation(ids("ab"), ids("cd")),
                  conversation(ids("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"), {9}),
                  // The template's line end behind <|im_end|> is no token of the answer.
                  conversation(ids(asked), ids("two<|im_end|>"))));
  EXPECT_TRUE(reading.prompts().empty());
}

TEST_F(ConversationReaderTest, PassesOverATornLastLineOnlyIfAsked) {
  const std::string torn = "{\"prompt\":[5],\"completion\":[6]}\n{\"prompt\":[7],\"compl";
  EXPECT_THAT(refusal(torn), HasSubstr("data.jsonl line 2: "));
  ConversationReader reading = reader();
  reading.read(directory_.write("torn.jsonl", torn), /*torn_end=*/true);
  EXPECT_THAT(reading.finished(), ElementsAre(conversation({5}, {6})));
}

TEST_F(ConversationReaderTest, LeavesPromptsToBeAnswered) {
  ConversationReader reading = reader();
  reading.read(directory_.write("data.jsonl", R"({"prompt": [5, 6], "temperature": 0.5, "seed": 3}
{"messages": [{"role": "user", "content": "hi"}]}
)"));
  ASSERT_EQ(reading.prompts().size(), 2u);
  EXPECT_EQ(reading.prompts()[0].prompt, (Ids{5, 6}));
  EXPECT_EQ(reading.prompts()[0].temperature, 0.5f);
  EXPECT_EQ(reading.prompts()[0].seed, 3u);
  EXPECT_EQ(reading.prompts()[0].max_new_tokens, 20);
  EXPECT_EQ(reading.prompts()[1].index, 1);
  EXPECT_EQ(reading.prompts()[1].prompt,
            ids("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"));
}

TEST_F(ConversationReaderTest, TheFirstOfEqualPromptsStandsInAllFiles) {
  ConversationReader reading = reader();
  reading.read(directory_.write("a.jsonl", "{\"prompt\":[5],\"completion\":[6,7]}\n"));
  reading.read(
      directory_.write("b.jsonl", "{\"prompt\":[5],\"completion\":[8,9]}\n{\"prompt\":[5]}\n"));
  EXPECT_THAT(reading.finished(), ElementsAre(conversation({5}, {6, 7})));
  EXPECT_TRUE(reading.prompts().empty());
  EXPECT_EQ(reading.duplicates(), 2);
}

TEST_F(ConversationReaderTest, CutsWhatIsTooLong) {
  ConversationReader reading = reader(4);
  reading.read(directory_.write("a.jsonl", "{\"prompt\":[5,6],\"completion\":[1,2,3,4]}\n"));
  EXPECT_THAT(reading.finished(), ElementsAre(conversation({5, 6}, {1, 2})));
  EXPECT_EQ(reading.cut(), 1);
}

TEST_F(ConversationReaderTest, RefusesBadLinesNamingFileLineAndField) {
  EXPECT_THAT(refusal("{\"prompt\":[5],\"completion\":[1]}\n\nnonsense\n"),
              HasSubstr("data.jsonl line 3: "));
  const auto refused = [&](const std::string& line, const std::string& said) {
    EXPECT_THAT(refusal(line), HasSubstr("data.jsonl line 1: " + said)) << line;
  };
  refused(R"({"prompt": [5], "completion": [160]})", "completion: [0] is not a token id below 160");
  refused(R"({"prompt": [5], "completion": [1, -1]})", "completion: [1] is not a token id");
  refused(R"({"prompt": [5], "completion": 7})", "completion: expected a string or a list");
  refused(R"({"prompt": [5], "completion": []})", "completion: the answer has no tokens");
  refused(R"({"prompt": [160], "completion": [1]})", "prompt: ");
  refused(R"({"completion": [1]})", "prompt: neither");
  refused(R"({"prompt": [5], "completion": [1], "answer": 1})", "answer: ");
  refused(R"({"messages": [{"role": "assistant", "content": "a"}]})", "messages: an answer to");
  refused(R"({"messages": [{"role": "user", "content": 1}]})", "messages[0].content: ");
  refused(R"({"prompt": [5], "completion": [1])", "the line");
}

TEST(Conversations, ComeBackFromTheirLineAndFromBytes) {
  const Conversation one{{3, 4, 5}, 1};
  const Conversation two{{1, 2}, 1};
  EXPECT_EQ(conversation_line(one), R"({"prompt":[3],"completion":[4,5]})");
  EXPECT_THAT(decode_conversations(encode_conversations(std::vector{one, two})),
              ElementsAre(one, two));
  EXPECT_NE(prompt_digest(Ids{1, 2}), prompt_digest(Ids{1}));
}

}  // namespace
}  // namespace paceline::runtime
