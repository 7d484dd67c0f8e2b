#include "runtime/requests/output_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "runtime/requests/result_line.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;

/// A job of three requests: "a", "b" and the bad line 3.
class OutputFileTest : public ::testing::Test {
 protected:
  OutputFileTest() {
    manifest_.input_sha256 = input_.sha256();
    manifest_.options = {{"max_tokens", "5"}};
  }

  OutputState inspect(bool resume) const {
    return inspect_output(output_, resume, manifest_, input_);
  }

  std::string refusal(bool resume) const {
    try {
      inspect(resume);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  }

  std::string answer(std::size_t index, std::vector<std::int32_t> token_ids) const {
    const Answer answer{.text = "x",
                        .prompt_tokens = 2,
                        .token_ids = std::move(token_ids),
                        .steps = 2,
                        .seed = 0,
                        .ttft_ms = 1.0};
    return result_line(input_.read(index), answer, {}, 1);
  }

  TemporaryDirectory directory_;
  JsonlInput input_ =
      JsonlInput::open(directory_.write("in.jsonl",
                                        "{\"custom_id\": \"a\", \"prompt\": \"1\"}\n"
                                        "{\"custom_id\": \"b\", \"prompt\": \"2\"}\n{bad\n"),
                       {});
  std::filesystem::path output_ = directory_.path() / "out.jsonl";
  OutputManifest manifest_;
};

TEST_F(OutputFileTest, WritesTheManifestAndThenLines) {
  OutputFile file = OutputFile::open(inspect(false));
  EXPECT_EQ(read_manifest(manifest_path(output_)), manifest_);
  EXPECT_EQ(directory_.read("out.jsonl"), "");
  file.write_line("one");
  EXPECT_EQ(directory_.read("out.jsonl"), "one\n");  // there at once: nothing is buffered
  file.write_line("two");
  file.finish();
  EXPECT_EQ(directory_.read("out.jsonl"), "one\ntwo\n");
}

TEST_F(OutputFileTest, LookingChangesNothing) {
  inspect(false);
  inspect(true);
  EXPECT_FALSE(std::filesystem::exists(output_));
  EXPECT_FALSE(std::filesystem::exists(manifest_path(output_)));
}

TEST_F(OutputFileTest, AnswersAreNeverOverwritten) {
  directory_.write("out.jsonl", "x");
  EXPECT_THAT(refusal(false), HasSubstr("out.jsonl: already holds answers. --resume"));
  EXPECT_THAT(refusal(true), HasSubstr("its manifest"));
  directory_.write("out.jsonl", "");
  EXPECT_EQ(refusal(false), "accepted");
  EXPECT_EQ(refusal(true), "accepted");
}

TEST_F(OutputFileTest, ResumingNothingBegins) {
  EXPECT_EQ(inspect(true).num_finished(), 0u);
  OutputFile::open(inspect(true)).write_line(answer(0, {1}));
  EXPECT_EQ(inspect(true).num_finished(), 1u);
}

TEST_F(OutputFileTest, ResumeFindsFinishedLines) {
  {
    OutputFile file = OutputFile::open(inspect(false));
    file.write_line(error_line("line-3", 3, RequestError("", "bad")));
    file.write_line(answer(1, {7, 8, 9}));
  }
  const OutputState state = inspect(true);
  EXPECT_TRUE(state.has_manifest);
  EXPECT_EQ(state.num_finished(), 2u);
  EXPECT_FALSE(state.finished[0]);
  ASSERT_TRUE(state.finished[1]);
  EXPECT_FALSE(state.finished[1]->is_error);
  EXPECT_EQ(state.finished[1]->token_digest, token_digest({7, 8, 9}));
  EXPECT_EQ(state.finished[1]->prompt_tokens, 2);
  EXPECT_EQ(state.finished[1]->completion_tokens, 3);
  EXPECT_EQ(state.finished[1]->steps, 2);
  ASSERT_TRUE(state.finished[2]);
  EXPECT_TRUE(state.finished[2]->is_error);
}

// Whatever byte the last write got to, the resumed file holds each answer once and whole.
TEST_F(OutputFileTest, EveryTornLineIsCutOff) {
  const std::string first = answer(0, {1}) + "\n";
  const std::string second = answer(1, {2}) + "\n";
  for (std::size_t cut = 0; cut <= second.size(); ++cut) {
    std::filesystem::remove(output_);
    {
      OutputFile file = OutputFile::open(inspect(false));
      file.write_line(answer(0, {1}));
    }
    directory_.write("out.jsonl", first + second.substr(0, cut));
    const OutputState state = inspect(true);
    const bool is_whole = cut == second.size();
    EXPECT_EQ(state.num_finished(), is_whole ? 2u : 1u);
    EXPECT_EQ(state.torn_bytes, is_whole ? 0 : cut);
    OutputFile file = OutputFile::open(state);
    if (!is_whole) file.write_line(answer(1, {2}));
    EXPECT_EQ(directory_.read("out.jsonl"), first + second);
  }
}

TEST_F(OutputFileTest, ADifferentJobIsRefusedByName) {
  OutputFile::open(inspect(false)).write_line(answer(0, {1}));
  manifest_.options["max_tokens"] = "6";
  EXPECT_THAT(refusal(true), HasSubstr("option max_tokens was \"5\", now \"6\""));
}

TEST_F(OutputFileTest, DamageInTheMiddleIsNamed) {
  OutputFile::open(inspect(false));
  const auto refusal_of = [&](const std::string& text) {
    directory_.write("out.jsonl", text);
    return refusal(true);
  };
  const std::string good = answer(0, {1}) + "\n";
  EXPECT_THAT(refusal_of(good + "{oops\n"), HasSubstr("out.jsonl line 2: not valid JSON"));
  EXPECT_THAT(refusal_of(good + "\n" + good), HasSubstr("line 2: not valid JSON"));
  EXPECT_THAT(refusal_of(good + good), HasSubstr("line 2: the custom_id \"a\" is answered twice"));
  EXPECT_THAT(refusal_of("{\"custom_id\": \"z\"}\n"), HasSubstr("\"z\" is not in"));
  EXPECT_THAT(refusal_of("{}\n"), HasSubstr("line 1: no custom_id"));
  EXPECT_THAT(refusal_of("{\"custom_id\": \"a\"}\n"), HasSubstr("no digest"));
  std::string no_hex = good;
  no_hex.replace(no_hex.find("token_sha256") + 15, 1, "g");
  EXPECT_THAT(refusal_of(no_hex), HasSubstr("no digest"));
}

TEST_F(OutputFileTest, OneProcessWritesAtATime) {
  const OutputState state = inspect(false);
  const OutputFile file = OutputFile::open(state);
  EXPECT_THAT([&] { OutputFile::open(state); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("another process is writing it")));
}

TEST_F(OutputFileTest, AFileThatGrewSinceItWasInspectedIsNotTouched) {
  const OutputState state = inspect(false);
  directory_.write("out.jsonl", "somebody's");
  EXPECT_THROW(OutputFile::open(state), ConfigError);
  EXPECT_EQ(directory_.read("out.jsonl"), "somebody's");
}

TEST_F(OutputFileTest, StreamsHaveNoManifest) {
  output_ = "/dev/null";
  OutputFile file = OutputFile::open(inspect(false));
  file.write_line("x");
  file.finish();
  EXPECT_THAT(refusal(true), HasSubstr("--resume needs an output file"));
  output_ = "-";
  EXPECT_TRUE(inspect(false).is_stream);
  output_ = directory_.path();
  EXPECT_THAT(refusal(false), HasSubstr("is a directory"));
}

TEST_F(OutputFileTest, AFullDiskEndsTheJob) {
  output_ = "/dev/full";
  OutputFile file = OutputFile::open(inspect(false));
  EXPECT_THROW(file.write_line("x"), FatalError);
}

TEST_F(OutputFileTest, AFolderThatIsNotThereIsNamed) {
  output_ = directory_.path() / "missing" / "out.jsonl";
  EXPECT_THROW(OutputFile::open(inspect(false)), ConfigError);
}

}  // namespace
}  // namespace paceline::runtime
