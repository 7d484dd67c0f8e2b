#include "runtime/requests/jsonl_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "runtime/files/sha256.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;

class JsonlInputTest : public ::testing::Test {
 protected:
  JsonlInput open(const std::string& text) const {
    return JsonlInput::open(directory_.write("in.jsonl", text), {});
  }
  std::string refusal(const std::string& text) const {
    try {
      open(text);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  }

  TemporaryDirectory directory_;
};

std::string prompt(const JsonlInput& input, std::size_t index) {
  return std::get<std::string>(input.read(index).prompt);
}

TEST_F(JsonlInputTest, ReadsLinesInAnyOrder) {
  const std::string text = "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"custom_id\": \"x\"}\n";
  const JsonlInput input = open(text);
  ASSERT_EQ(input.size(), 2u);
  EXPECT_EQ(prompt(input, 1), "b");
  EXPECT_EQ(prompt(input, 0), "a");
  EXPECT_EQ(input.id(0), "line-1");
  EXPECT_EQ(input.id(1), "x");
  EXPECT_EQ(input.find("x"), 1u);
  EXPECT_EQ(input.find("line-2"), std::nullopt);
  EXPECT_EQ(input.sha256(), sha256_hex(text));
}

TEST_F(JsonlInputTest, BlankLinesCountInNumbers) {
  const JsonlInput input = open("\n{\"prompt\": \"a\"}\n   \t\n\r\n{\"prompt\": \"b\"}");
  ASSERT_EQ(input.size(), 2u);
  EXPECT_EQ(input.line(0), 2);
  EXPECT_EQ(input.line(1), 5);
  EXPECT_EQ(input.read(1).id, "line-5");
  EXPECT_EQ(input.read(1).line, 5);
}

TEST_F(JsonlInputTest, AcceptsByteOrderMarkCrLfAndAnOpenLastLine) {
  const JsonlInput input = open("\xef\xbb\xbf{\"prompt\": \"a\"}\r\n{\"prompt\": \"b\"}");
  ASSERT_EQ(input.size(), 2u);
  EXPECT_EQ(prompt(input, 0), "a");
  EXPECT_EQ(prompt(input, 1), "b");
  EXPECT_EQ(open("\xef\xbb\xbf\n").size(), 0u);
}

TEST_F(JsonlInputTest, AnEmptyFileHasNoRequests) {
  EXPECT_EQ(open("").size(), 0u);
  EXPECT_EQ(open("\n\n").size(), 0u);
}

TEST_F(JsonlInputTest, RepeatedIdsStopTheJobNamingBothLines) {
  EXPECT_THAT(refusal("{\"custom_id\": \"a\"}\n\n{\"custom_id\": \"b\"}\n{\"custom_id\": \"a\"}\n"),
              HasSubstr("in.jsonl: lines 1 and 4 have the same custom_id \"a\""));
  // A line that has no id of its own is line-2: nobody else may be.
  EXPECT_THAT(refusal("{\"custom_id\": \"line-2\"}\n{}\n"), HasSubstr("lines 1 and 2"));
}

TEST_F(JsonlInputTest, BadLinesAreErrorsOfTheirOwn) {
  const JsonlInput input = open("{\"custom_id\": \"a\", \"n\": 2}\n{oops\n{\"prompt\": \"c\"}\n");
  ASSERT_EQ(input.size(), 3u);
  EXPECT_EQ(input.id(0), "a");
  EXPECT_THROW(input.read(0), RequestError);
  EXPECT_EQ(input.id(1), "line-2");
  EXPECT_THROW(input.read(1), RequestError);
  EXPECT_EQ(prompt(input, 2), "c");
}

TEST_F(JsonlInputTest, LinesMayCrossThePiecesOfTheFirstPass) {
  std::string text;
  for (int i = 0; i < 40; ++i) {
    text += "{\"custom_id\": \"id" + std::to_string(i) + "\", \"prompt\": \"" +
            std::string(100'000 + static_cast<std::size_t>(i), 'p') + "\"}\n";
  }
  const JsonlInput input = open(text);
  ASSERT_EQ(input.size(), 40u);
  EXPECT_EQ(input.sha256(), sha256_hex(text));
  for (std::size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(input.id(i), "id" + std::to_string(i));
    EXPECT_EQ(prompt(input, i).size(), 100'000 + i);
  }
}

TEST_F(JsonlInputTest, ALineThatIsTooLongIsAnErrorAndTheNextOneRuns) {
  const JsonlInput input =
      open("{\"prompt\": \"" + std::string(kMaxLineBytes, 'p') + "\"}\n{\"prompt\": \"b\"}\n");
  ASSERT_EQ(input.size(), 2u);
  EXPECT_THROW(input.read(0), RequestError);
  EXPECT_EQ(prompt(input, 1), "b");
  EXPECT_EQ(input.line(1), 2);
}

TEST_F(JsonlInputTest, AFileThatChangesMeanwhileEndsTheJob) {
  const JsonlInput input = open("{\"custom_id\": \"a\"}\n");
  directory_.write("in.jsonl", "{\"custom_id\": \"b\"}\n");
  EXPECT_THROW(input.read(0), FatalError);
  directory_.write("in.jsonl", "");
  EXPECT_THROW(input.read(0), FatalError);
}

TEST_F(JsonlInputTest, OnlyRegularFilesAreRead) {
  EXPECT_THROW(JsonlInput::open(directory_.path(), {}), ConfigError);
  EXPECT_THROW(JsonlInput::open(directory_.path() / "missing", {}), ConfigError);
  EXPECT_THROW(JsonlInput::open("/dev/null", {}), ConfigError);
}

}  // namespace
}  // namespace paceline::runtime
