#include "drafter/recurrent_drafter.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/core/error.h"
#include "tests/drafter/mixed_requests.h"
#include "tests/drafter/random_head.h"
#include "tests/drafter/random_tree.h"
#include "tests/drafter/slow_layers.h"

namespace paceline::drafter {
namespace {

constexpr std::int64_t kVocab = 200;
constexpr std::int64_t kHidden = 24;

DrafterConfig head(bool rnn, std::int64_t exit_dim, Tokens draft_vocab = {}) {
  return {.vocab_size = kVocab,
          .hidden_size = kHidden,
          .exit_dim = exit_dim,
          .num_draft_layers = 2,
          .rnn = rnn,
          .draft_vocab = std::move(draft_vocab)};
}

/// Requests over shared tokens and hidden states [9, hidden], in the backend's memory.
class Fixture {
 public:
  Fixture(const DrafterConfig& config, kernels::Backend& backend,
          kernels::WeightFormat format = kernels::WeightFormat::kFp32)
      : backend_(backend),
        weights_(format),
        embedding_(weights_.matrix("embedding", kVocab, kHidden), backend),
        drafter_(config, weights_, embedding_, backend),
        hidden_(weights_.values("hidden", 9 * kHidden, 2.0f)) {}

  std::vector<TokenTree> draft(const std::vector<DraftRequest>& requests) {
    kernels::Buffer device = backend_.allocate(hidden_.size() * sizeof(float));
    backend_.upload(device.as<void>(), hidden_.data(), device.bytes());
    std::vector<TokenTree> trees;
    drafter_.draft({device.as<float>(), requests}, trees);
    return trees;
  }
  std::vector<float>& hidden() { return hidden_; }
  const RandomWeights& weights() const { return weights_; }
  const DraftStats& stats() const { return drafter_.stats(); }

 private:
  kernels::Backend& backend_;
  RandomWeights weights_;
  TableEmbedding embedding_;
  RecurrentDrafter drafter_;
  std::vector<float> hidden_;
};

/// The paper's equations in double, row by row.
class SlowHead {
 public:
  SlowHead(const DrafterConfig& config, const RandomWeights& weights)
      : config_(config),
        layers_(weights),
        table_(weights.values("embedding", kVocab * kHidden, 0.5f)) {}

  using Row = SlowLayers::Row;

  Row advance(std::int32_t token, const Row& previous) const {
    const Row embedded(table_.begin() + token * kHidden, table_.begin() + (token + 1) * kHidden);
    Row state(kHidden);
    const Row w = layers_.times("rnn_w", kHidden, embedded);
    const Row u = layers_.with_bias("rnn_u", kHidden, previous);
    for (int i = 0; i < kHidden; ++i) {
      state[i] = config_.rnn ? SlowLayers::silu(w[i] + u[i]) : embedded[i] + previous[i];
    }
    return state;
  }

  std::vector<float> logits(const float* hidden, const Row& state) const {
    Row x(hidden, hidden + kHidden);
    x.insert(x.end(), state.begin(), state.end());
    if (config_.has_input_projection()) x = layers_.with_bias("input_proj", config_.exit_dim, x);
    x = layers_.block("lm_head.1.linear", layers_.block("lm_head.0.linear", x));
    const Row out = layers_.times("lm_head.2", config_.num_outputs(), x);
    return {out.begin(), out.end()};
  }

 private:
  DrafterConfig config_;
  SlowLayers layers_;
  std::vector<float> table_;
};

// Every node's log-probability is the equations', given the path to it.
TEST(RecurrentDrafter, ComputesTheEquations) {
  Tokens every_third;
  for (std::int32_t token = 1; token < kVocab; token += 3) every_third.push_back(token);
  const auto backend = kernels::make_reference_backend();
  for (const DrafterConfig& config : {head(true, 2 * kHidden), head(true, 40),
                                      head(false, 2 * kHidden), head(true, 40, every_third)}) {
    Fixture fixture(config, *backend);
    const SlowHead slow(config, fixture.weights());
    const std::vector<DraftRequest> requests = mixed_requests();
    const std::vector<TokenTree> trees = fixture.draft(requests);
    for (const std::size_t r : {1u, 4u, 6u}) {
      const float* hidden = fixture.hidden().data() + requests[r].hidden_row * kHidden;
      ASSERT_FALSE(trees[r].empty());
      for (std::int32_t node = 0; node < trees[r].size(); ++node) {
        Tokens path = path_to(trees[r], node);
        path.insert(path.begin(), requests[r].tokens.back());
        const std::int32_t last = path.back();
        path.pop_back();
        SlowHead::Row state(kHidden, 0.0);
        for (const std::int32_t token : path) state = slow.advance(token, state);
        const std::vector<float> logits = slow.logits(hidden, state);
        const std::size_t row = static_cast<std::size_t>(
            config.draft_vocab.empty()
                ? last
                : std::find(every_third.begin(), every_third.end(), last) - every_third.begin());
        ASSERT_LT(row, logits.size());
        EXPECT_NEAR(trees[r].nodes()[node].log_prob, slow_log_prob(logits, row), 3e-4);
      }
    }
  }
}

TEST(RecurrentDrafter, KeepsToTheShapes) {
  const auto backend = kernels::make_cpu_backend({});
  Fixture fixture(head(true, 40), *backend);
  const std::vector<DraftRequest> requests = mixed_requests();
  const std::vector<TokenTree> trees = fixture.draft(requests);
  std::int64_t nodes = 0;
  for (std::size_t i = 0; i < trees.size(); ++i) {
    std::int32_t deepest = 0;
    for (const TreeNode& node : trees[i].nodes()) deepest = std::max(deepest, node.depth);
    const DraftShape& shape = requests[i].shape;
    const bool drafted = shape.width > 0 && shape.depth > 0;
    if (shape.max_nodes == 0) {
      EXPECT_EQ(deepest, drafted ? std::min(shape.depth, requests[i].max_depth) : 0);
    }
    EXPECT_EQ(trees[i].empty(), !drafted);
    nodes += trees[i].size();
  }
  EXPECT_EQ(trees[6].size(), 10);
  EXPECT_EQ(trees[3].unmerged_rows, 64 * 3);
  EXPECT_EQ(fixture.stats().drafts, 6);
  EXPECT_EQ(fixture.stats().nodes, nodes);
  // Rows of the head, depth by depth: one, then as many as there are beams.
  EXPECT_EQ(fixture.stats().rows,
            1 + (1 + 4 + 4) + (1 + 50) + (1 + 4 * 3) + (1 + 3 * 8) + (1 + 5 * 5));
}

// A request's tree is the same bits alone and in a batch, on every backend and with any threads.
TEST(RecurrentDrafter, ARequestIsDraftedAsIfItWereAlone) {
  const std::vector<DraftRequest> requests = mixed_requests();
  for (const DrafterConfig& config : {head(true, 40), head(false, 2 * kHidden)}) {
    const auto reference = kernels::make_reference_backend();
    const std::vector<TokenTree> expected = Fixture(config, *reference).draft(requests);
    for (const std::string_view isa : kernels::supported_isas()) {
      const auto backend = kernels::make_cpu_backend({.threads = 2, .isa = std::string(isa)});
      Fixture fixture(config, *backend);
      EXPECT_EQ(fixture.draft(requests), expected) << isa;
      for (std::size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ(fixture.draft({requests[i]}), std::vector<TokenTree>{expected[i]}) << isa;
      }
    }
  }
}

TEST(RecurrentDrafter, DraftsOnlyItsOwnVocabulary) {
  const Tokens vocabulary = {5, 8, 100, 199};
  const auto backend = kernels::make_cpu_backend({});
  Fixture fixture(head(true, 40, vocabulary), *backend);
  const std::vector<TokenTree> trees = fixture.draft(mixed_requests());
  Tokens drafted;
  for (const TokenTree& tree : trees) {
    for (const TreeNode& node : tree.nodes()) {
      drafted.push_back(node.token);
      EXPECT_TRUE(std::binary_search(vocabulary.begin(), vocabulary.end(), node.token));
    }
  }
  for (const std::int32_t token : vocabulary) {
    EXPECT_TRUE(std::find(drafted.begin(), drafted.end(), token) != drafted.end());
  }
}

TEST(RecurrentDrafter, ANumberThatIsNotFiniteEmptiesThatTreeAlone) {
  const auto backend = kernels::make_cpu_backend({});
  Fixture fixture(head(true, 40), *backend);
  const std::vector<DraftRequest> requests = mixed_requests();
  std::vector<TokenTree> expected = fixture.draft(requests);
  EXPECT_EQ(fixture.stats().non_finite, 0);
  fixture.hidden()[static_cast<std::size_t>(requests[4].hidden_row * kHidden)] =
      std::numeric_limits<float>::quiet_NaN();
  const std::vector<TokenTree> trees = fixture.draft(requests);
  expected[4].clear();
  EXPECT_EQ(trees, expected);
  EXPECT_EQ(fixture.stats().non_finite, 1);
}

TEST(RecurrentDrafter, TheBeamsFollowTheRequestsNoise) {
  const auto backend = kernels::make_cpu_backend({});
  Fixture fixture(head(true, 40), *backend);
  DraftRequest request = mixed_requests()[1];
  const auto tree = [&] { return fixture.draft({request})[0]; };
  const TokenTree noisy = tree();
  EXPECT_EQ(tree(), noisy);
  request.sampling.seed = 12;
  EXPECT_NE(tree(), noisy);
  request.sampling.temperature = 0;
  const TokenTree plain = tree();
  request.sampling.seed = 11;
  EXPECT_EQ(tree(), plain);
}

TEST(RecurrentDrafter, RunsInTheFormatsOfItsWeights) {
  const std::vector<DraftRequest> requests = mixed_requests();
  using kernels::WeightFormat;
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kInt8Channel}) {
    const auto reference = kernels::make_reference_backend();
    const auto backend = kernels::make_cpu_backend({});
    const DrafterConfig config = head(true, 40);
    EXPECT_EQ(Fixture(config, *backend, format).draft(requests),
              Fixture(config, *reference, format).draft(requests));
  }
}

}  // namespace
}  // namespace paceline::drafter
