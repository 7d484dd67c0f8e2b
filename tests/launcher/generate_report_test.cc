#include "launcher/generate_report.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "launcher/deployment.h"
#include "runtime/files/json.h"
#include "tests/temporary_directory.h"

namespace paceline::launcher {
namespace {

GenerateFigures example() {
  GenerateFigures figures;
  figures.totals.requests = 5;
  figures.totals.resumed = 1;
  figures.totals.answered = 3;
  figures.totals.failed = 1;
  figures.totals.prompt_tokens = 30;
  figures.totals.generated_tokens = 120;
  figures.totals.steps = 100;
  figures.totals.ttft_ms = {30, 10, 20};
  figures.replicas.resize(2);
  figures.replicas[1].stats.preemptions = 4;
  for (runtime::ReplicaReport& replica : figures.replicas) {
    replica.stats.tree_rows = 40;
    replica.stats.saved_rows = 10;
    replica.stats.drafted_at = {5, 4};
  }
  figures.replicas[0].stats.accepted_at = {4, 1};
  figures.replicas[1].stats.accepted_at = {1, 1};
  figures.peak_memory = {200'000'000, 1'500'000'000};
  figures.load_seconds = 0.5;
  figures.run_seconds = 2;
  figures.numerics_id = "cpu,w=fp32";
  figures.ranks = 2;
  figures.checksum = "abc";
  return figures;
}

TEST(GenerateReport, SumsUpForPeople) {
  const std::string text = summary_text(example());
  for (const char* line :
       {"requests              3 answered, 1 failed, 1 from an earlier run, of 5",
        "tokens                30 prompt, 120 generated", "generated tokens/s    60.0",
        "tokens per step       1.200", "time to first token   20 ms mean, 20 ms p50, 30 ms p99",
        "accepted by depth     0.50 0.25",
        "tree rows             80 verified, 20 % saved by merging",
        "peak memory per rank  200.0 MB, 1.50 GB", "checksum              abc"}) {
    EXPECT_NE(text.find(std::string(line) + "\n"), std::string::npos) << line << "\nin" << text;
  }
  GenerateFigures unfinished = example();
  unfinished.checksum.clear();
  EXPECT_EQ(summary_text(unfinished).find("checksum"), std::string::npos);
}

TEST(GenerateReport, SaysWhoDrafted) {
  GenerateFigures figures = example();
  figures.replicas.assign(1, {});
  EXPECT_EQ(summary_text(figures).find("drafter"), std::string::npos);
  figures.drafters = {"Medusa", "lookup"};
  figures.replicas[0].stats.tree_rows = 10;
  figures.replicas[0].stats.drafted_at[0] = 4;
  figures.replicas[0].stats.accepted_at[0] = 3;
  const std::string text = summary_text(figures);
  EXPECT_NE(text.find("drafter               Medusa and lookup\n"), std::string::npos) << text;
  EXPECT_NE(text.find("accepted by depth     0.75\n"), std::string::npos) << text;
}

TEST(GenerateReport, AJobThatAnsweredNothingDividesByNothing) {
  const std::string text = summary_text({});
  EXPECT_NE(text.find("generated tokens/s    0.0\n"), std::string::npos) << text;
  EXPECT_NE(text.find("tokens per step       0.000\n"), std::string::npos) << text;
}

TEST(GenerateReport, WritesEveryFigureAsJson) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "report.json";
  write_report(path, example());
  const runtime::Json json = runtime::read_json(path);
  EXPECT_EQ(json["requests"]["answered"], 3);
  EXPECT_EQ(json["tokens_per_second"], 60.0);
  EXPECT_EQ(json["tokens_per_step"], 1.2);
  EXPECT_EQ(json["ttft_ms"]["p50"], 20.0);
  EXPECT_EQ(json["drafters"], runtime::Json::array());
  EXPECT_EQ(json["replicas"].size(), 2u);
  EXPECT_EQ(json["replicas"][1]["preemptions"], 4);
  EXPECT_EQ(json["drafts"], (runtime::Json{{"trees", 10},
                                           {"tree_rows", 80},
                                           {"rows_saved_by_merging", 20},
                                           {"non_finite", 0},
                                           {"acceptance_by_depth", {0.5, 0.25}}}));
  EXPECT_EQ(json["peak_memory_bytes"][1], 1'500'000'000u);
  EXPECT_EQ(json["checksum"], "abc");
  EXPECT_THROW(write_report(directory.path() / "missing" / "report.json", example()), ConfigError);
}

TEST(ModelName, IsTheDirectorysLastPart) {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory.path() / "SmolLM2");
  EXPECT_EQ(model_name(directory.path() / "SmolLM2"), "SmolLM2");
  EXPECT_EQ(model_name(directory.path() / "SmolLM2" / ""), "SmolLM2");
  EXPECT_EQ(model_name(directory.path() / "SmolLM2" / "."), "SmolLM2");
}

TEST(SizeText, CountsInThousands) {
  EXPECT_EQ(size_text(512), "0.5 kB");
  EXPECT_EQ(size_text(84'100'000), "84.1 MB");
  EXPECT_EQ(size_text(2'010'000'000), "2.01 GB");
}

}  // namespace
}  // namespace paceline::launcher
