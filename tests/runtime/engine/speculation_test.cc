#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "drafter/lookup.h"
#include "drafter/medusa_drafter.h"
#include "drafter/merged_drafter.h"
#include "drafter/recurrent_drafter.h"
#include "kernels/core/error.h"
#include "runtime/drafting/drafter_files.h"
#include "runtime/drafting/model_embedding.h"
#include "tests/drafter/random_head.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/engine/rule_drafters.h"

// Drafts change the number of steps and nothing else: whatever is guessed, however wrong.

namespace paceline::runtime {
namespace {

struct Outcome {
  Answers answers;
  EngineStats stats;
};

Outcome run_with(drafter::Drafter* drafter, const drafter::DraftShape& shape,
                 SchedulerLimits limits = kAmple, kernels::KvFormat kv = kernels::KvFormat::kBf16) {
  const auto backend = kernels::make_cpu_backend({.threads = 2});
  const auto single = parallel::make_single();
  FixtureRank rank("llama_gqa", {.kv = kv, .limits = limits}, *backend, *single,
                   {.drafter = drafter, .shape = shape});
  Outcome outcome{run_to_end(rank.engine(), mixed_requests()), rank.engine().stats()};
  EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), limits.num_pages);
  return outcome;
}

TEST(Speculation, WrongGuessesChangeNothing) {
  const Answers expected = run_with(nullptr, {}).answers;
  RandomDrafter random;
  StubbornDrafter stubborn;
  for (const drafter::DraftShape shape : {drafter::DraftShape{1, 1, 1}, {1, 7, 7}, {8, 5, 40}}) {
    const Outcome with_random = run_with(&random, shape);
    EXPECT_EQ(with_random.answers, expected);
    EXPECT_GT(with_random.stats.tree_rows, 0);
    EXPECT_EQ(run_with(&stubborn, shape).answers, expected);
  }
}

TEST(Speculation, RightGuessesSaveStepsAndChangeNothing) {
  const Outcome plain = run_with(nullptr, {});
  Oracle oracle(mixed_requests(), plain.answers);
  const Outcome drafted = run_with(&oracle, {2, 6, 12});
  EXPECT_EQ(drafted.answers, plain.answers);
  EXPECT_LT(drafted.stats.steps * 3, plain.stats.steps);
  for (std::size_t depth = 0; depth < 6; ++depth) {
    EXPECT_EQ(drafted.stats.accepted_at[depth], drafted.stats.drafted_at[depth]) << depth;
  }
}

TEST(Speculation, ChunksAndPreemptionChangeNothing) {
  for (const kernels::KvFormat kv : {kernels::KvFormat::kBf16, kernels::KvFormat::kInt8}) {
    const Answers expected = run_with(nullptr, {}, kAmple, kv).answers;
    Oracle oracle(mixed_requests(), expected);
    RandomDrafter random;
    for (drafter::Drafter* drafter :
         {static_cast<drafter::Drafter*>(&oracle), static_cast<drafter::Drafter*>(&random)}) {
      for (const std::int32_t pages : {5, 6, 9}) {
        const Outcome outcome = run_with(drafter, {4, 4, 16},
                                         {.max_sequences = 6,
                                          .max_rows = 29,
                                          .page_size = kPageSize,
                                          .num_pages = pages,
                                          .max_sampled = 20},
                                         kv);
        EXPECT_EQ(outcome.answers, expected) << pages << ", kv " << kernels::format_name(kv);
      }
    }
  }
}

TEST(Speculation, ARequestMayDoWithout) {
  const Outcome plain = run_with(nullptr, {});
  Oracle oracle(mixed_requests(), plain.answers);
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank rank("llama_gqa", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, *backend,
                   *single, {.drafter = &oracle, .shape = {2, 6, 12}});
  std::vector<EngineRequest> admitted = mixed_requests();
  for (EngineRequest& request : admitted) request.speculative = false;
  EXPECT_EQ(run_to_end(rank.engine(), admitted), plain.answers);
  EXPECT_EQ(rank.engine().stats().tree_rows, 0);
}

// The leader changes its mind before every step; the other ranks hear of it.
TEST(Speculation, ShapesThatSwitchBetweenStepsChangeNothing) {
  const Answers expected = run_with(nullptr, {}).answers;
  for (const unsigned seed : {0u, 1u, 2u, 3u}) {
    for (const int ranks : {1, 2}) {
      parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
        const auto backend = kernels::make_cpu_backend({});
        Oracle oracle(mixed_requests(), expected);
        drafter::LookupDrafter lookup;
        drafter::MergedDrafter merged({&oracle, &lookup});
        FixtureRank rank("llama_gqa", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, *backend,
                         communicator, {.drafter = &merged, .shape = {2, 3, 4}});
        std::mt19937 random(seed);
        const auto switch_shape = [&](Control& control) {
          if (communicator.rank() != 0 || random() % 4 == 0) return;
          const auto draw = [&](unsigned end) { return static_cast<std::int32_t>(random() % end); };
          control.draft = drafter::DraftShape{draw(9), draw(7), draw(20)};
        };
        EXPECT_EQ(run_to_end(rank.engine(), mixed_requests(), switch_shape), expected)
            << ranks << " ranks, seed " << seed;
        EXPECT_GT(rank.engine().stats().tree_rows, 0);
        EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), kAmple.num_pages);
      });
    }
  }
}

TEST(Speculation, AShapeHoldsUntilAnotherIsTold) {
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  StubbornDrafter stubborn;
  FixtureRank rank("llama_gqa", {.limits = kAmple}, *backend, *single,
                   {.drafter = &stubborn, .shape = {1, 2, 2}});
  EngineRequest request;
  request.prompt = {1, 2, 3};
  request.max_new_tokens = 100;
  request.ignore_eos = true;
  Control control;
  control.admit = {request};
  // Rows of the trees of one step.
  const auto step = [&] {
    const std::int64_t before = rank.engine().stats().tree_rows;
    rank.engine().step(control);
    control = {};
    return rank.engine().stats().tree_rows - before;
  };
  EXPECT_EQ(step(), 0);  // the prompt
  EXPECT_EQ(step(), 2);
  control.draft = drafter::DraftShape{};
  EXPECT_EQ(step(), 0);
  EXPECT_EQ(step(), 0);
  control.draft = drafter::DraftShape{1, 9, 7};
  EXPECT_EQ(step(), 7);
  EXPECT_EQ(step(), 7);
  control.draft = drafter::DraftShape{drafter::kMaxDraftWidth + 1, 1, 1};
  EXPECT_THROW(step(), FatalError);
}

TEST(Speculation, LookupFindsWhatRepeatsItself) {
  const Outcome plain = run_with(nullptr, {});
  drafter::LookupDrafter lookup;
  const Outcome drafted = run_with(&lookup, {4, 4, 0});
  EXPECT_EQ(drafted.answers, plain.answers);
  EXPECT_GT(drafted.stats.tree_rows, 0);
}

/// Medusa heads of random weights for the fixture model.
drafter::DrafterConfig medusa_heads(std::vector<Ids> choices = {}) {
  const ModelConfig base = read_model_config(fixture_dir("llama_gqa"));
  drafter::DrafterConfig config;
  config.vocab_size = base.vocab_size;
  config.hidden_size = config.exit_dim = base.hidden_size;
  config.num_draft_layers = 1;
  config.kind = drafter::DrafterKind::kMedusa;
  config.num_heads = 3;
  config.choices = std::move(choices);
  return config;
}

TEST(Speculation, MedusaHeadsChangeNothing) {
  const Answers expected = run_with(nullptr, {}).answers;
  const drafter::RandomWeights weights;
  const auto backend = kernels::make_cpu_backend({});
  drafter::LookupDrafter lookup;
  for (const auto& choices : {std::vector<Ids>{}, std::vector<Ids>{{0}, {1}, {30}, {0, 0}}}) {
    drafter::MedusaDrafter medusa(medusa_heads(choices), weights, *backend);
    drafter::MergedDrafter merged({&medusa, &lookup});
    for (drafter::Drafter* drafter :
         {static_cast<drafter::Drafter*>(&medusa), static_cast<drafter::Drafter*>(&merged)}) {
      for (const drafter::DraftShape shape : {drafter::DraftShape{1, 1, 0}, {40, 1}, {8, 5, 33}}) {
        const Outcome outcome = run_with(drafter, shape);
        EXPECT_EQ(outcome.answers, expected);
        EXPECT_GT(outcome.stats.tree_rows, 0);
        // Of forty guesses in a vocabulary this small some are right.
        EXPECT_TRUE(shape.width < 40 || outcome.stats.accepted_at[0] > 0 || !choices.empty());
      }
    }
  }
}

TEST(Speculation, MedusaHeadsThatAreNotFiniteDraftNothing) {
  // Finite weights, and sums that are not: every draft is empty and counted.
  class HugeWeights final : public drafter::WeightSource {
   public:
    kernels::MatrixSource matrix(const std::string&, std::int64_t n,
                                 std::int64_t k) const override {
      return drafter::fp32_matrix(std::vector<float>(n * k, 3e38f), n, k);
    }
    std::vector<float> vector(const std::string&, std::int64_t n) const override {
      return std::vector<float>(n, 3e38f);
    }
  };
  const auto backend = kernels::make_cpu_backend({});
  drafter::MedusaDrafter medusa(medusa_heads(), HugeWeights(), *backend);
  const Outcome outcome = run_with(&medusa, {4, 3});
  EXPECT_EQ(outcome.answers, run_with(nullptr, {}).answers);
  EXPECT_EQ(outcome.stats.tree_rows, 0);
  EXPECT_GT(outcome.stats.non_finite_drafts, 0);
}

// Apple's own generations: tests/data/apple_golden was computed by ml-recurrent-drafter.
class AppleGolden : public testing::TestWithParam<const char*> {
 protected:
  static std::filesystem::path dir(const std::string& name) {
    return std::filesystem::path(PACELINE_TEST_DATA) / "apple_golden" / name;
  }
};

INSTANTIATE_TEST_SUITE_P(Drafters, AppleGolden,
                         testing::Values("rnn_exit_2h", "rnn_exit_h", "sum_exit_2h"));

/// A rank with the golden base model and one of its drafters.
class GoldenRank {
 public:
  GoldenRank(const std::filesystem::path& base, const std::filesystem::path& drafter,
             const drafter::DraftShape& shape, kernels::Backend& backend,
             parallel::Communicator& communicator, bool shared_noise = true)
      : config_(read_model_config(base)),
        checkpoint_(Checkpoint::open(base)),
        formats_(choose_formats(checkpoint_, config_, WeightChoice::kFp32)),
        plan_(plan_shards(config_, formats_, 8, communicator.size(), communicator.rank())),
        cache_(config_, plan_, kernels::KvFormat::kFp32, kAmple.num_pages, backend),
        model_(config_, checkpoint_, plan_, formats_,
               {.max_rows = kAmple.max_rows, .max_sampled = kAmple.max_sampled}, backend,
               communicator),
        files_(DrafterFiles::open(drafter, WeightChoice::kAuto, {"base", config_, checkpoint_})),
        embedding_(model_),
        drafter_(files_.config(), files_, embedding_, backend),
        engine_(model_, backend, communicator, kAmple, cache_.pool(),
                {.terminate = [] { return false; }, .enter_phase = [](std::string_view) {}},
                {.drafter = &drafter_, .shape = shape, .shared_noise = shared_noise}) {}
  Engine& engine() { return engine_; }

 private:
  ModelConfig config_;
  Checkpoint checkpoint_;
  WeightFormats formats_;
  ShardPlan plan_;
  KvCache cache_;
  LlamaModel model_;
  DrafterFiles files_;
  ModelEmbedding embedding_;
  drafter::RecurrentDrafter drafter_;
  Engine engine_;
};

drafter::DraftShape shape_of(const Json& golden) {
  return {golden.at("beam_width").get<std::int32_t>(),
          golden.at("beam_length_with_init").get<std::int32_t>() - 1, 0};
}

// The same tokens in the same steps: after each, as many tokens are known as Apple's code knows.
TEST_P(AppleGolden, GeneratesTheSameTokensInTheSameSteps) {
  const Json cases = read_json(dir("cases.json"));
  int compared = 0;
  for (const Json& golden : cases.at("drafters").at(GetParam()).at("generate")) {
    if (!golden.contains("prompt")) continue;
    const auto output = golden.at("output").get<Ids>();
    EngineRequest request;
    request.prompt = golden.at("prompt").get<Ids>();
    request.max_new_tokens = 100;  // beyond what is compared: near its limit a draft is cut
    request.ignore_eos = true;
    const auto backend = kernels::make_cpu_backend({});
    const auto single = parallel::make_single();
    GoldenRank rank(dir("base"), dir(GetParam()), shape_of(golden), *backend, *single);
    Ids tokens = request.prompt;
    Control control;
    control.admit = {request};
    const auto step = [&] {
      for (const TokenEvent& event : rank.engine().step(control)) tokens.push_back(event.token);
      control = {};
    };
    step();  // the prompt, and its first token
    for (const Json& length : golden.at("length_after_each_step")) {
      step();
      const auto known = std::min(tokens.size(), output.size());
      EXPECT_EQ(known, length.get<std::size_t>());
      ASSERT_EQ(Ids(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(known)),
                Ids(output.begin(), output.begin() + static_cast<std::ptrdiff_t>(known)));
    }
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

// With the noise that tokens are sampled with a head guesses more of them; without it the same
// tokens come in more steps.
TEST_P(AppleGolden, SharedNoiseSavesStepsAndChangesNoToken) {
  std::vector<EngineRequest> requests = mixed_requests();
  for (EngineRequest& request : requests) {
    request.temperature = 1;
    request.max_new_tokens = 40;
  }
  const auto run = [&](const drafter::DraftShape& shape, bool shared_noise) {
    const auto backend = kernels::make_cpu_backend({});
    const auto single = parallel::make_single();
    GoldenRank rank(dir("base"), dir(GetParam()), shape, *backend, *single, shared_noise);
    Answers answers = run_to_end(rank.engine(), requests);
    return std::pair(answers, rank.engine().stats().accepted_at);
  };
  const auto plain = run({}, true), shared = run({4, 3, 0}, true), none = run({4, 3, 0}, false);
  EXPECT_EQ(shared.first, plain.first);
  EXPECT_EQ(none.first, plain.first);
  EXPECT_GT(shared.second[0], none.second[0]);
}

TEST_P(AppleGolden, BatchesOverRanksGiveThePlainContinuations) {
  const Json cases = read_json(dir("cases.json"));
  for (const Json& golden : cases.at("drafters").at(GetParam()).at("generate")) {
    if (!golden.contains("prompts")) continue;
    for (const int ranks : {1, 3}) {
      parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
        const auto backend = kernels::make_cpu_backend({});
        GoldenRank rank(dir("base"), dir(GetParam()), shape_of(golden), *backend, communicator);
        const auto expected = golden.at("autoregressive").get<std::vector<Ids>>();
        std::vector<EngineRequest> batch;
        for (const Json& prompt : golden.at("prompts")) {
          EngineRequest request;
          request.uid = batch.size();
          request.prompt = prompt.get<Ids>();
          request.max_new_tokens =
              static_cast<std::int32_t>(expected[batch.size()].size() - request.prompt.size());
          request.ignore_eos = true;
          batch.push_back(request);
        }
        for (const auto& [uid, ids] : run_to_end(rank.engine(), batch)) {
          Ids whole = batch[uid].prompt;
          whole.insert(whole.end(), ids.begin(), ids.end());
          EXPECT_EQ(whole, expected[uid]) << ranks << " ranks";
        }
      });
    }
  }
}

}  // namespace
}  // namespace paceline::runtime
