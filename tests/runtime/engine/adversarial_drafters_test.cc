#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>

#include "drafter/lookup.h"
#include "drafter/merged_drafter.h"
#include "drafter/recurrent_drafter.h"
#include "runtime/drafting/model_embedding.h"
#include "tests/drafter/random_head.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/engine/rule_drafters.h"
#include "tests/temporary_directory.h"

// Whatever a drafter does to the engine, and whatever a guessed token does to the model: no token
// changes.

namespace paceline::runtime {
namespace {

struct Outcome {
  Answers answers;
  EngineStats stats;
};

/// Few pages: what one request leaves behind, another one gets.
constexpr SchedulerLimits kTight{
    .max_sequences = 6, .max_rows = 60, .page_size = kPageSize, .num_pages = 6, .max_sampled = 60};

/// Of weights and cache.
struct Formats {
  WeightChoice weights = WeightChoice::kAuto;
  kernels::KvFormat kv = kernels::KvFormat::kFp32;
};

Outcome run(const std::string& model, drafter::Drafter* drafter, const drafter::DraftShape& shape,
            const SchedulerLimits& limits = kAmple,
            const std::vector<EngineRequest>& requests = mixed_requests(),
            const Formats& formats = {}) {
  const auto backend = kernels::make_cpu_backend({.threads = 2});
  const auto single = parallel::make_single();
  FixtureRank rank(model, {.weights = formats.weights, .kv = formats.kv, .limits = limits},
                   *backend, *single, {.drafter = drafter, .shape = shape});
  Outcome outcome{run_to_end(rank.engine(), requests), rank.engine().stats()};
  EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), limits.num_pages);
  return outcome;
}

std::int64_t accepted(const EngineStats& stats) {
  return std::accumulate(stats.accepted_at.begin(), stats.accepted_at.end(), std::int64_t{0});
}

TEST(AdversarialDrafter, OneThatIsAlwaysWrongChangesNothing) {
  const Answers expected = run("llama_gqa", nullptr, {}).answers;
  Liar liar(mixed_requests(), expected);
  for (const std::int32_t depth : {1, 2, 7, drafter::kMaxDraftDepth}) {
    const Outcome outcome = run("llama_gqa", &liar, {1, depth, 0});
    EXPECT_EQ(outcome.answers, expected);
    EXPECT_GT(outcome.stats.drafted_at[static_cast<std::size_t>(depth) - 1], 0);
    EXPECT_EQ(accepted(outcome.stats), 0) << "right tokens below a wrong one";
  }
}

TEST(AdversarialDrafter, OneThatKnowsOneTokenChangesNothing) {
  const Answers expected = run("llama_gqa", nullptr, {}).answers;
  constexpr std::int32_t kEndOfSequence = 159;
  for (const std::int32_t token : {0, 3, kEndOfSequence}) {
    StubbornDrafter stubborn(token);
    const Outcome outcome = run("llama_gqa", &stubborn, {1, 7, 0});
    EXPECT_EQ(outcome.answers, expected) << token;
    EXPECT_GT(outcome.stats.tree_rows, 0);
  }
}

/// Finite weights that overflow: those of one tensor are enormous.
class EnormousWeights final : public drafter::WeightSource {
 public:
  explicit EnormousWeights(std::string tensor) : tensor_(std::move(tensor)) {}
  kernels::MatrixSource matrix(const std::string& name, std::int64_t n,
                               std::int64_t k) const override {
    return drafter::fp32_matrix(values(name, n * k), n, k);
  }
  std::vector<float> vector(const std::string& name, std::int64_t n) const override {
    return values(name, n);
  }

 private:
  std::vector<float> values(const std::string& name, std::int64_t count) const {
    return random_.values(name, count, name == tensor_ ? 3e38f : 0.5f);
  }
  drafter::RandomWeights random_;
  std::string tensor_;
};

/// An engine with a ReDrafter head of those weights, and lookup beside it if asked for.
Outcome run_enormous(parallel::Communicator& communicator, const std::string& tensor, bool lookup) {
  const auto backend = kernels::make_cpu_backend({});
  FixtureRank rank("llama_gqa", {.limits = kAmple}, *backend, communicator);
  ModelEmbedding embedding(rank.model());
  drafter::DrafterConfig config;
  config.vocab_size = rank.config().vocab_size;
  config.hidden_size = rank.config().hidden_size;
  config.exit_dim = 2 * config.hidden_size;
  config.num_draft_layers = 1;
  config.rnn = true;
  drafter::RecurrentDrafter head(config, EnormousWeights(tensor), embedding, *backend);
  drafter::LookupDrafter repeated;
  drafter::MergedDrafter both({&head, &repeated});
  drafter::Drafter* drafter = &head;
  if (lookup) drafter = &both;
  Engine engine(rank.model(), *backend, communicator, kAmple, rank.cache().pool(),
                {.terminate = [] { return false; }, .enter_phase = [](std::string_view) {}},
                {.drafter = drafter, .shape = {3, 3, 0}});
  Outcome outcome{run_to_end(engine, mixed_requests()), engine.stats()};
  EXPECT_EQ(engine.scheduler().pages().free_pages(), kAmple.num_pages);
  return outcome;
}

TEST(AdversarialDrafter, DraftsThatTurnNonFiniteAreEmptyTreesAndCounted) {
  const Answers expected = run("llama_gqa", nullptr, {}).answers;
  const auto single = parallel::make_single();
  const Outcome finite = run_enormous(*single, "none", false);
  EXPECT_EQ(finite.answers, expected);
  EXPECT_GT(finite.stats.tree_rows, 0);
  EXPECT_EQ(finite.stats.non_finite_drafts, 0);
  for (const char* tensor : {"rnn_w", "lm_head.0.linear", "lm_head.1"}) {
    const Outcome outcome = run_enormous(*single, tensor, false);
    EXPECT_EQ(outcome.answers, expected) << tensor;
    EXPECT_EQ(outcome.stats.tree_rows, 0) << tensor;
    EXPECT_GT(outcome.stats.non_finite_drafts, 100) << tensor;
  }
  // From a state of 0 this one does not matter: drafts of depth 1 are fine, deeper ones are not.
  const Outcome deep = run_enormous(*single, "rnn_u", false);
  EXPECT_EQ(deep.answers, expected);
  EXPECT_GT(deep.stats.tree_rows, 0);
  EXPECT_GT(deep.stats.non_finite_drafts, 100);
  EXPECT_EQ(deep.stats.drafted_at[1], 0);
}

TEST(AdversarialDrafter, LookupGoesOnBesideAHeadThatTurnsNonFinite) {
  const Answers expected = run("llama_gqa", nullptr, {}).answers;
  for (const int ranks : {1, 2}) {
    parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
      const Outcome outcome = run_enormous(communicator, "lm_head.1", true);
      EXPECT_EQ(outcome.answers, expected);
      EXPECT_GT(outcome.stats.non_finite_drafts, 100);
      EXPECT_GT(outcome.stats.tree_rows, 0);
    });
  }
}

/// A copy of llama_gqa in which one token's embedding is no number: a row that is fed that token,
/// and every row that attends to it, has logits that are no numbers.
class PoisonedModel {
 public:
  explicit PoisonedModel(std::int32_t token) {
    for (const auto& file : std::filesystem::directory_iterator(fixture_dir("llama_gqa"))) {
      std::filesystem::copy(file.path(), directory_.path());
    }
    std::string bytes = directory_.read("model.safetensors");
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
    const Json header = Json::parse(bytes.substr(sizeof(header_bytes), header_bytes));
    const Json& table = header.at("model.embed_tokens.weight");
    EXPECT_EQ(table.at("dtype"), "F32");
    const auto width = table.at("shape").at(1).get<std::size_t>();
    const std::vector<float> row(width, std::numeric_limits<float>::quiet_NaN());
    std::memcpy(bytes.data() + sizeof(header_bytes) + header_bytes +
                    table.at("data_offsets").at(0).get<std::size_t>() +
                    static_cast<std::size_t>(token) * width * sizeof(float),
                row.data(), width * sizeof(float));
    directory_.write("model.safetensors", bytes);
  }
  std::string path() const { return directory_.path().string(); }

 private:
  TemporaryDirectory directory_;
};

/// How many requests have the token in their prompts, or feed it back from their answers.
int feed(const Answers& answers, std::int32_t token) {
  int requests = 0;
  for (const EngineRequest& request : mixed_requests()) {
    const Ids& answer = answers.at(request.uid);
    requests += std::count(request.prompt.begin(), request.prompt.end(), token) > 0 ||
                std::count(answer.begin(), answer.end() - 1, token) > 0;
  }
  return requests;
}

class NonFiniteLogits : public testing::TestWithParam<Formats> {};

// Integer weights are not among them: such numbers are refused when they are converted.
INSTANTIATE_TEST_SUITE_P(Formats, NonFiniteLogits,
                         testing::Values(Formats{},
                                         Formats{WeightChoice::kBf16, kernels::KvFormat::kBf16},
                                         Formats{WeightChoice::kAuto, kernels::KvFormat::kInt8}),
                         [](const auto& tested) {
                           return std::string(kernels::format_name(tested.param.kv));
                         });

TEST_P(NonFiniteLogits, OnTheAcceptedPathEndThatRequestAlone) {
  const Answers clean = run("llama_gqa", nullptr, {}, kAmple, mixed_requests(), GetParam()).answers;
  // A token that one request alone meets, in the midst of its answer.
  constexpr std::uint64_t kStruck = 7;
  Ids answer = clean.at(kStruck);
  const auto poison = std::find_if(answer.begin() + 5, answer.end() - 5,
                                   [&](std::int32_t token) { return feed(clean, token) == 1; });
  ASSERT_NE(poison, answer.end() - 5);
  const PoisonedModel model(*poison);
  // Another request has it in its prompt, and gets no token at all.
  std::vector<EngineRequest> requests = mixed_requests();
  EngineRequest& hopeless = requests.emplace_back();
  hopeless.uid = hopeless.seed = 9;
  hopeless.prompt = {1, 2, *poison, 4};
  hopeless.max_new_tokens = 20;
  Answers known = clean;  // as if the model could go on past the token
  known[9] = {1, 2, 3, 4};
  Answers expected = clean;
  expected[9] = {-1};
  // In the midst of the answer it is still sampled, by logits that are finite.
  answer.erase(poison + 1, answer.end());
  answer.push_back(-1);
  expected.at(kStruck) = answer;

  Oracle oracle(requests, known);
  RandomDrafter random;
  drafter::LookupDrafter lookup;
  for (drafter::Drafter* drafter :
       {static_cast<drafter::Drafter*>(nullptr), static_cast<drafter::Drafter*>(&oracle),
        static_cast<drafter::Drafter*>(&random), static_cast<drafter::Drafter*>(&lookup)}) {
    for (const SchedulerLimits& limits : {kAmple, kTight}) {
      EXPECT_EQ(run(model.path(), drafter, {3, 4, 0}, limits, requests, GetParam()).answers,
                expected);
    }
  }
}

TEST_P(NonFiniteLogits, OnRejectedNodesChangeNothing) {
  const Answers expected =
      run("llama_gqa", nullptr, {}, kAmple, mixed_requests(), GetParam()).answers;
  std::int32_t poison = 0;
  while (poison < 158 && feed(expected, poison) > 0) ++poison;
  ASSERT_LT(poison, 158);
  const PoisonedModel model(poison);
  StubbornDrafter stubborn(poison);
  Oracle oracle(mixed_requests(), expected, poison);
  for (const SchedulerLimits& limits : {kAmple, kTight}) {
    const Outcome rejected =
        run(model.path(), &stubborn, {1, 5, 0}, limits, mixed_requests(), GetParam());
    EXPECT_EQ(rejected.answers, expected);
    EXPECT_GT(rejected.stats.tree_rows, 0);
    // Beside accepted nodes, whose keys and values move over those of the rejected ones.
    const Outcome beside =
        run(model.path(), &oracle, {2, 6, 0}, limits, mixed_requests(), GetParam());
    EXPECT_EQ(beside.answers, expected);
    EXPECT_GT(accepted(beside.stats), 0);
  }
}

}  // namespace
}  // namespace paceline::runtime
