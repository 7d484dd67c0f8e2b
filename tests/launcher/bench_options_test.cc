#include "launcher/bench_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// The command `bench` with the given words behind it.
class Command {
 public:
  explicit Command(std::vector<std::string> words) {
    add_options(app_, options_);
    words.insert(words.begin(), {"--model", "somewhere"});
    std::ranges::reverse(words);  // as CLI11 wants them
    app_.parse(words);
  }
  std::vector<BenchGroup> expand() { return expand_sweep(app_, options_); }
  const BenchOptions& options() const { return options_; }

  std::string refusal() {
    try {
      expand();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  }

 private:
  CLI::App app_;
  BenchOptions options_;
};

TEST(BenchOptions, ListsAreSeparatedByCommas) {
  const Command command({"--prompt-tokens", "1,8,32", "--concurrency", "1,64", "--step-rows", "2"});
  EXPECT_THAT(command.options().prompt_tokens, ElementsAre(1, 8, 32));
  EXPECT_THAT(command.options().concurrency, ElementsAre(1, 64));
  EXPECT_THAT(command.options().step_rows, ElementsAre(2));
  EXPECT_THROW(Command({"--concurrency", "1,0"}), CLI::ParseError);
  EXPECT_THROW(Command({"--max-batch", "3"}), CLI::ParseError);  // --concurrency says it
}

TEST(ExpandSweep, OfNothingIsOneGroup) {
  Command command({"--threads", "2"});
  const std::vector<BenchGroup> groups = command.expand();
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].options.cluster.threads, 2);
  EXPECT_EQ(groups[0].drafts.size(), 1u);
}

// Formats and threads need a load each; shapes of drafts share one.
TEST(ExpandSweep, LoadsAModelOnceForAllDrafts) {
  Command command({"--lookup", "--draft-nodes", "9", "--sweep", "weights=int8,fp32", "--sweep",
                   "draft=off,1x4,8x4", "--sweep", "threads=1,2"});
  const std::vector<BenchGroup> groups = command.expand();
  ASSERT_EQ(groups.size(), 4u);
  std::vector<std::string> settings;
  for (const BenchGroup& group : groups) {
    settings.push_back(group.options.model.weights + " " +
                       std::to_string(group.options.cluster.threads));
    std::vector<std::string> shapes;
    for (const DraftOptions& draft : group.drafts) {
      shapes.push_back(draft.shape);
      EXPECT_EQ(draft.max_nodes, 9);
    }
    EXPECT_THAT(shapes, ElementsAre("off", "1x4", "8x4"));
  }
  EXPECT_THAT(settings, ElementsAre("int8 1", "int8 2", "fp32 1", "fp32 2"));
  EXPECT_EQ(command.options().model.weights, "auto");  // as it was
}

TEST(ExpandSweep, RefusesWhatItCannotDo) {
  EXPECT_THAT(Command({"--sweep", "tp=1,2"}).refusal(), HasSubstr("mpirun -n N paceline bench"));
  EXPECT_THAT(Command({"--sweep", "seed=1,2"}).refusal(), HasSubstr("expected one of threads"));
  EXPECT_THAT(Command({"--sweep", "threads"}).refusal(), HasSubstr("expected KEY=VALUE"));
  EXPECT_THAT(Command({"--sweep", "threads=two"}).refusal(), HasSubstr("--sweep threads: "));
  EXPECT_THAT(Command({"--sweep", "weights=int3"}).refusal(), HasSubstr("int3"));
  EXPECT_THAT(Command({"--sweep", "draft=4x4"}).refusal(), HasSubstr("nothing drafts"));
  EXPECT_THAT(Command({"--lookup", "--sweep", "draft=4x99"}).refusal(), HasSubstr("--draft 4x99"));
}

TEST(SimulatedAcceptance, NeedsADrafterDeepEnough) {
  EXPECT_THAT(Command({"--simulate-acceptance", "3"}).refusal(), HasSubstr("needs a --drafter"));
  EXPECT_EQ(Command({"--simulate-acceptance", "3", "--drafter", "d", "--draft", "4x4"}).refusal(),
            "accepted");
  EXPECT_THAT(Command({"--simulate-acceptance", "3", "--drafter", "d"}).refusal(),
              HasSubstr("--draft of given shape"));
  EXPECT_THAT(Command({"--simulate-acceptance", "3", "--drafter", "d", "--lookup"}).refusal(),
              HasSubstr("no --lookup"));
  EXPECT_THAT(
      Command({"--simulate-acceptance", "5.5", "--drafter", "d", "--draft", "8x4"}).refusal(),
      HasSubstr("drafts of 4 tokens give at most 5"));
}

}  // namespace
}  // namespace paceline::launcher
