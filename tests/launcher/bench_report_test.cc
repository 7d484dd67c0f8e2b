#include "launcher/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace paceline::launcher {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

BenchTest plain_test() {
  return {.setting = 0,
          .prompt_tokens = 512,
          .new_tokens = 128,
          .concurrency = 8,
          .requests = 8,
          .draft = "off",
          .runs = 3,
          .speeds = {{"prefill_tokens_per_s", {1000, 1100, 1200}},
                     {"decode_tokens_per_s", {100, 110, 90}},
                     {"output_throughput", {80, 80, 80}},
                     {"total_token_throughput", {400, 400, 430}},
                     {"tokens_per_step", {1, 1, 1}},
                     {"rows_per_step", {8, 8, 8}},
                     {"forward_ms", {4, 5, 6}},
                     {"exchange_ms", {1, 1, 1}},
                     {"weight_gb_per_s", {12, 12, 12}}},
          .latencies = {{"ttft_ms", {10, 20, 30}}, {"tpot_ms", {9, 10, 11}}},
          .tasks = {{"random", 24, 3072, 1, 10}},
          .ranks = {{.agree_ms = 0.5, .forward_ms = 5, .exchange_ms = 1},
                    {.agree_ms = 0, .forward_ms = 6, .exchange_ms = 0}},
          .peak_memory = {200'000'000, 190'000'000},
          .bandwidth = {10e9, 20e9}};
}

BenchTest draft_test() {
  BenchTest test = plain_test();
  test.input = "mt_bench";
  test.prompt_tokens = 0;
  test.concurrency = 1;
  test.request_rate = 2.5;
  test.draft = "8x4";
  test.draft_nodes = 12;
  test.speeds.push_back({"joules_per_token", {0.5, 0.5, 0.5}});
  test.speeds.push_back({"tree_size", {6, 6, 6}});
  test.drafts.tree_rows = 60;
  test.drafts.saved_rows = 20;
  test.drafts.drafted_at = {10, 8};
  test.drafts.accepted_at = {5, 2};
  test.tasks = {{"maths", 12, 1500, 2.25, 4.5}, {"writing", 12, 1572, 1.75, 5.5}};
  return test;
}

BenchReport example() {
  return {
      .model = "Tiny",
      .parameters = 134'515'008,
      .cpu = "Test CPU",
      .cores = 2,
      .memory = 16'000'000'000,
      .mpi = "Open MPI v4.1.4",
      .hosts = {"a", "a"},
      .seed = 7,
      .settings = {{.numerics_id = "cpu,w=int4",
                    .weights = "int4",
                    .backend = "avx2",
                    .threads = 1,
                    .ranks = 2,
                    .tp = 2,
                    .exchange = "shared memory",
                    .drafter = "head",
                    .weight_bytes = 84'100'000,
                    .weight_bytes_read = 84'000'000,
                    .kv_bytes = 5'000'000,
                    .max_batch_tokens = 512,
                    .load_seconds = 0.5}},
      .tests = {plain_test(), draft_test()},
      .step_costs = {
          {.setting = 0, .rows = 4, .context = 64, .step_ms = {2, 3, 4}, .forward_ms = {1, 2, 3}}}};
}

TEST(TestNames, AreThoseOfLlamaBench) {
  BenchTest test = plain_test();
  EXPECT_EQ(test_names(test).prefill, "pp512 @ c8");
  EXPECT_EQ(test_names(test).decode, "tg128 @ d512 c8");
  EXPECT_EQ(test_names(test).whole, "pp512+tg128 @ c8");
  test = draft_test();
  EXPECT_EQ(test_names(test).prefill, "prompts of mt_bench @ c1 r2.5");
  EXPECT_EQ(test_names(test).decode, "tg128 @ mt_bench c1 r2.5");
  EXPECT_EQ(test_names(test).whole, "mt_bench+tg128 @ c1 r2.5");
}

TEST(MarkdownTable, HasARowForEachSpeed) {
  BenchReport report = example();
  report.tests.resize(1);
  EXPECT_EQ(
      markdown_table(report),
      "| model     |    size |   params | backend | threads | ranks | draft |             test "
      "|              t/s |\n"
      "| --------- | ------: | -------: | ------: | ------: | ----: | ----: | ---------------: "
      "| ---------------: |\n"
      "| Tiny int4 | 84.1 MB | 134.52 M |    avx2 |       1 |     2 |   off |       pp512 @ c8 "
      "| 1100.00 ± 100.00 |\n"
      "| Tiny int4 | 84.1 MB | 134.52 M |    avx2 |       1 |     2 |   off |  tg128 @ d512 c8 "
      "|   100.00 ± 10.00 |\n"
      "| Tiny int4 | 84.1 MB | 134.52 M |    avx2 |       1 |     2 |   off | pp512+tg128 @ c8 "
      "|   410.00 ± 17.32 |\n");
}

TEST(BenchText, SaysWhatATableHasNoRoomFor) {
  const std::string text = bench_text(example());
  for (const char* line :
       {"Test CPU, 2 cores, 16.00 GB of memory; Open MPI v4.1.4",
        "pp512+tg128 @ c8, draft off, 2 ranks of 1 thread, cpu,w=int4, 3 runs",
        "  prefill tok/s       1100.00 ± 100.00, median 1100.00, 1000.00 to 1200.00",
        "  output tok/s        80.00 ± 0.00, median 80.00, 80.00 to 80.00; 40.00 a rank",
        "  ttft_ms             20.00 ± 10.00, p50 20.00, p90 28.00, p99 29.80",
        "  weights read        12.00 GB/s of 30.00 that memory gives: 40 %",
        "  energy              not readable on this machine",
        "  peak memory         200.0 MB, 190.0 MB; weights 84.1 MB in all, keys and values up to "
        "5.0 MB a rank",
        "  rank 0              computes 4.000 ms a step, exchanges 1.000, agrees 0.500",
        "  skew                rank 1 computes 20 % longer than the average",
        "mt_bench+tg128 @ c1 r2.5, draft head 8x4, 12 nodes, 2 ranks of 1 thread, cpu,w=int4, 3 "
        "runs",
        "  accepted by depth   0.50 0.25",
        "  tree size           6.0 nodes, 25 % of the rows saved by merging",
        "  energy              0.50 ± 0.00 J a token",
        "  maths               12 requests, 1500 tokens, 2.250 a step, 4.50 ms a token",
        "| int4    |       1 |    4 | 3.00 ± 1.00 |   3.00 |    0.750 |"}) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
  EXPECT_THAT(text, Not(HasSubstr("warning")));
}

TEST(BenchText, WarnsOfWhatSpoilsAFigure) {
  BenchReport report = example();
  report.simulated = 3.5;
  report.tests.resize(1);
  report.tests[0].failed = 2;
  report.tests[0].speeds.push_back({"preemptions", {0, 3, 0}});
  EXPECT_THAT(bench_text(report), HasSubstr("warning             1.0 preemptions a run"));
  EXPECT_THAT(bench_text(report), HasSubstr("warning             2 requests failed"));
  EXPECT_THAT(bench_text(report), Not(HasSubstr("too shallow")));  // nothing is drafted
  report.tests[0].draft = "8x4";
  EXPECT_THAT(bench_text(report), HasSubstr("3.5 tokens a step were to be simulated"));
  EXPECT_THAT(markdown_table(report),
              HasSubstr("simulated: drafts are accepted as if a step gave 3.5 tokens; the tokens "
                        "are not the model's"));
}

TEST(BenchJson, HoldsEverything) {
  const runtime::OrderedJson json = bench_json(example());
  EXPECT_EQ(json["schema"], 1);
  EXPECT_TRUE(json["commit"].is_string());
  EXPECT_TRUE(json["simulated_tokens_per_step"].is_null());
  EXPECT_EQ(json["model"]["parameters"], 134'515'008);
  EXPECT_EQ(json["machine"]["cores"], 2);
  EXPECT_EQ(json["settings"][0]["numerics_id"], "cpu,w=int4");
  const auto& plain = json["tests"][0];
  EXPECT_EQ(plain["name"], "pp512+tg128 @ c8");
  EXPECT_EQ(plain["prompt_tokens"], 512);
  EXPECT_TRUE(plain["input"].is_null());
  EXPECT_TRUE(plain["request_rate"].is_null());
  EXPECT_EQ(plain["prefill_tokens_per_s"]["mean"], 1100.0);
  EXPECT_EQ(plain["prefill_tokens_per_s"]["stddev"], 100.0);
  EXPECT_EQ(plain["ttft_ms"]["p90"], 28.0);
  EXPECT_EQ(plain["output_throughput_per_rank"], 40.0);
  EXPECT_EQ(plain["bandwidth_share"], 0.4);
  EXPECT_EQ(plain["ranks"][1]["compute_ms"], 6.0);
  EXPECT_FALSE(plain.contains("joules_per_token"));
  const auto& drafted = json["tests"][1];
  EXPECT_TRUE(drafted["prompt_tokens"].is_null());
  EXPECT_EQ(drafted["draft"], "8x4");
  EXPECT_EQ(drafted["acceptance_by_depth"], runtime::OrderedJson({0.5, 0.25}));
  EXPECT_EQ(drafted["tasks"][0]["tpot_ms"], 4.5);
  EXPECT_EQ(json["step_cost"][0]["rows"], 4);
  EXPECT_EQ(json["step_cost"][0]["step_ms"]["median"], 3.0);
}

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (const char letter : line) {
    if (letter == '"') quoted = !quoted;
    if (letter == ',' && !quoted) {
      cells.emplace_back();
    } else if (letter != '"') {
      cells.back() += letter;
    }
  }
  return cells;
}

TEST(BenchCsv, HasALineForEachTestWithAllColumns) {
  std::istringstream lines(bench_csv(example()));
  std::string line;
  std::getline(lines, line);
  const std::vector<std::string> head = cells_of(line);
  const auto cell = [&](const std::vector<std::string>& cells, const std::string& name) {
    const auto column = std::ranges::find(head, name);
    return column == head.end() ? "no column" : cells.at(column - head.begin());
  };
  std::vector<std::vector<std::string>> tests;
  while (std::getline(lines, line)) tests.push_back(cells_of(line));
  ASSERT_EQ(tests.size(), 2u);
  for (const auto& test : tests) EXPECT_EQ(test.size(), head.size());
  EXPECT_EQ(cell(tests[0], "schema"), "1");
  EXPECT_EQ(cell(tests[0], "numerics_id"), "cpu,w=int4");
  EXPECT_EQ(cell(tests[0], "test"), "pp512+tg128 @ c8");
  EXPECT_EQ(cell(tests[0], "decode_tokens_per_s_mean"), "100");
  EXPECT_EQ(cell(tests[0], "ttft_ms_p99"), "29.8");
  EXPECT_EQ(cell(tests[0], "joules_per_token_mean"), "");
  EXPECT_EQ(cell(tests[0], "bandwidth_share"), "0.4");
  EXPECT_EQ(cell(tests[1], "joules_per_token_max"), "0.5");
  EXPECT_EQ(cell(tests[1], "draft_nodes"), "12");
}

}  // namespace
}  // namespace paceline::launcher
