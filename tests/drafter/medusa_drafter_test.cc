#include "drafter/medusa_drafter.h"

#include <gtest/gtest.h>

#include <limits>

#include "drafter/lookup.h"
#include "drafter/merged_drafter.h"
#include "kernels/core/error.h"
#include "kernels/core/sampling.h"
#include "tests/drafter/mixed_requests.h"
#include "tests/drafter/random_head.h"
#include "tests/drafter/random_tree.h"
#include "tests/drafter/slow_layers.h"

namespace paceline::drafter {
namespace {

constexpr std::int64_t kVocab = 200;
constexpr std::int64_t kHidden = 24;
constexpr std::int64_t kHeads = 4;

DrafterConfig heads(std::int64_t layers, Tokens draft_vocab = {}) {
  DrafterConfig config;
  config.vocab_size = kVocab;
  config.hidden_size = kHidden;
  config.exit_dim = kHidden;
  config.num_draft_layers = layers;
  config.draft_vocab = std::move(draft_vocab);
  config.kind = DrafterKind::kMedusa;
  config.num_heads = kHeads;
  return config;
}

/// Requests over shared tokens and hidden states [9, hidden], in the backend's memory.
class Fixture {
 public:
  Fixture(const DrafterConfig& config, kernels::Backend& backend,
          kernels::WeightFormat format = kernels::WeightFormat::kFp32)
      : backend_(backend),
        weights_(format),
        drafter_(config, weights_, backend),
        hidden_(weights_.values("hidden", 9 * kHidden, 2.0f)) {}

  std::vector<TokenTree> draft(const std::vector<DraftRequest>& requests) {
    std::vector<TokenTree> trees;
    drafter_.draft(batch(requests), trees);
    return trees;
  }
  DraftBatch batch(const std::vector<DraftRequest>& requests) {
    device_ = backend_.allocate(hidden_.size() * sizeof(float));
    backend_.upload(device_.as<void>(), hidden_.data(), device_.bytes());
    return {device_.as<float>(), requests};
  }
  std::vector<float>& hidden() { return hidden_; }
  const RandomWeights& weights() const { return weights_; }
  MedusaDrafter& drafter() { return drafter_; }
  const DraftStats& stats() const { return drafter_.stats(); }

 private:
  kernels::Backend& backend_;
  RandomWeights weights_;
  MedusaDrafter drafter_;
  std::vector<float> hidden_;
  kernels::Buffer device_;
};

/// A node of the slow tree.
struct Guess {
  Tokens path;
  double log_prob = 0;
  double score = 0;
};

/// The heads' equations in double and the tree by trying everything.
class SlowMedusa {
 public:
  SlowMedusa(const DrafterConfig& config, const RandomWeights& weights)
      : config_(config), layers_(weights) {}

  /// The `nodes` best paths, best first.
  std::vector<Guess> guesses(const float* hidden, const DraftRequest& request, int depth,
                             std::size_t nodes) const {
    std::vector<Guess> all, level{{}};
    for (int d = 0; d < depth; ++d) {
      const std::vector<Guess> tokens = candidates(hidden, request.sampling, d);
      std::vector<Guess> next;
      for (const Guess& above : level) {
        for (const Guess& token : tokens) {
          Guess longer = above;
          longer.path.push_back(token.path[0]);
          longer.log_prob = token.log_prob;
          longer.score += token.score;
          next.push_back(longer);
        }
      }
      keep_best(next, nodes);  // what is worse here has nothing better below
      all.insert(all.end(), next.begin(), next.end());
      level = next;
    }
    keep_best(all, nodes);
    return all;
  }

 private:
  static void keep_best(std::vector<Guess>& guesses, std::size_t count) {
    std::stable_sort(guesses.begin(), guesses.end(),
                     [](const Guess& a, const Guess& b) { return a.score > b.score; });
    if (guesses.size() > count) guesses.resize(count);
  }

  // Every token that head `head` may give, on a path of its own.
  std::vector<Guess> candidates(const float* hidden, kernels::SamplingRow sampling,
                                int head) const {
    SlowLayers::Row x(hidden, hidden + kHidden);
    const std::string name = std::to_string(head) + ".";
    for (int layer = 0; layer < config_.num_draft_layers; ++layer) {
      x = layers_.block(name + std::to_string(layer) + ".linear", x);
    }
    const SlowLayers::Row out =
        layers_.times(name + std::to_string(config_.num_draft_layers), config_.num_outputs(), x);
    const std::vector<float> logits(out.begin(), out.end());
    sampling.index += head;
    std::vector<Guess> all;
    for (std::size_t row = 0; row < logits.size(); ++row) {
      const double log_prob = slow_log_prob(logits, row);
      all.push_back({{config_.token_of(static_cast<std::int32_t>(row))}, log_prob, log_prob});
    }
    keep_best(all, kCandidates);
    if (sampling.temperature > 0) add_noise(sampling, all);
    return all;
  }

  static void add_noise(const kernels::SamplingRow& sampling, std::vector<Guess>& candidates) {
    double top = -std::numeric_limits<double>::infinity();
    for (Guess& one : candidates) {
      one.score = one.log_prob / sampling.temperature +
                  kernels::sampling_noise(sampling, static_cast<std::uint32_t>(one.path[0]));
      top = std::max(top, one.score);
    }
    for (Guess& one : candidates) one.score -= top;
  }

  DrafterConfig config_;
  SlowLayers layers_;
};

TEST(MedusaDrafter, DraftsTheSlowWaysTrees) {
  Tokens every_third;
  for (std::int32_t token = 1; token < kVocab; token += 3) every_third.push_back(token);
  const auto backend = kernels::make_reference_backend();
  for (const DrafterConfig& config : {heads(1), heads(0), heads(3), heads(1, every_third)}) {
    Fixture fixture(config, *backend);
    const SlowMedusa slow(config, fixture.weights());
    const std::vector<DraftRequest> requests = mixed_requests();
    const std::vector<TokenTree> trees = fixture.draft(requests);
    for (const std::size_t r : {0u, 1u, 3u, 4u, 6u, 7u}) {
      const DraftShape shape = checked_shape(requests[r]);
      const auto depth = static_cast<int>(std::min<std::int64_t>(shape.depth, kHeads));
      const std::vector<Guess> expected =
          slow.guesses(fixture.hidden().data() + requests[r].hidden_row * kHidden, requests[r],
                       depth, limited_nodes(shape, shape.width, shape.depth));
      ASSERT_EQ(std::size_t(trees[r].size()), expected.size()) << r;
      for (std::int32_t node = 0; node < trees[r].size(); ++node) {
        EXPECT_EQ(path_to(trees[r], node), expected[node].path) << r;
        EXPECT_NEAR(trees[r].nodes()[node].log_prob, expected[node].log_prob, 1e-4);
        EXPECT_NEAR(trees[r].nodes()[node].score, expected[node].score, 1e-3);
      }
    }
  }
}

TEST(MedusaDrafter, KeepsToTheShapes) {
  const auto backend = kernels::make_cpu_backend({});
  Fixture fixture(heads(1), *backend);
  std::vector<DraftRequest> requests = mixed_requests();
  requests[1].max_depth = 2;
  requests[3].max_depth = 0;
  const std::vector<TokenTree> trees = fixture.draft(requests);
  std::vector<std::int32_t> sizes;
  for (std::size_t i = 0; i < trees.size(); ++i) {
    sizes.push_back(trees[i].size());
    EXPECT_LE(trees[i].size(), fixture.drafter().most_nodes(requests[i].shape));
    EXPECT_EQ(trees[i].saved_rows, 0);
    for (const TreeNode& node : trees[i].nodes()) {
      EXPECT_LE(node.depth, std::min(requests[i].max_depth, requests[i].shape.depth));
    }
  }
  // 1x1; 4x3 cut to 4x2; none; none; 3x5; none; 8x4 with 10 nodes; 40 nodes, whatever the shape.
  EXPECT_EQ(sizes, (std::vector<std::int32_t>{1, 8, 0, 0, 15, 0, 10, 40}));
  EXPECT_EQ(fixture.stats().drafts, 5);
  EXPECT_EQ(fixture.stats().nodes, 1 + 8 + 15 + 10 + 40);
  EXPECT_EQ(fixture.stats().rows, 1 + 2 + 4 + 4 + 4);  // four heads, whatever the depth
  EXPECT_EQ(fixture.drafter().most_nodes({4, 0}), 0);
  EXPECT_EQ(fixture.drafter().most_nodes({8, 4, 10}), 10);

  std::vector<TokenTree> none(3);
  fixture.drafter().draft({}, none);
  EXPECT_TRUE(none.empty());
}

TEST(MedusaDrafter, DraftsTheTreeThatTheConfigChooses) {
  const auto backend = kernels::make_cpu_backend({});
  DrafterConfig config = heads(1);
  const std::vector<Tokens> choices = {{0}, {2}, {0, 0}, {0, 1}, {2, 0}, {0, 0, 0}, {0, 0, 0, 0}};
  config.choices = choices;
  Fixture fixture(config, *backend);
  DraftRequest request = mixed_requests()[1];  // sampled
  request.shape = {1, 4, 0};
  // A chain of what each head holds likeliest, and those that are a rank or two below it.
  const TokenTree tree = fixture.draft({request})[0];
  ASSERT_EQ(tree.size(), 7);
  config.choices.clear();
  Fixture all(config, *backend);
  request.shape = {64, 16, 0};
  const TokenTree large = all.draft({request})[0];
  const auto ranked = [&](std::int32_t parent, int rank) {
    for (std::int32_t node = 0; node < large.size(); ++node) {
      if (large.nodes()[node].parent == parent && rank-- == 0) return node;
    }
    return TreeNode::kRoot;
  };
  for (std::int32_t node = 0; node < tree.size(); ++node) {
    std::int32_t at = TreeNode::kRoot;
    for (const std::int32_t rank : choices[node]) at = ranked(at, rank);
    EXPECT_EQ(path_to(tree, node), path_to(large, at));
    EXPECT_EQ(tree.nodes()[node].score, large.nodes()[at].score);
  }
  // The shape's width does not count; its depth and its number of nodes do.
  EXPECT_EQ(fixture.drafter().most_nodes({1, 4, 0}), 7);
  EXPECT_EQ(fixture.drafter().most_nodes({1, 2, 0}), 5);
  EXPECT_EQ(fixture.drafter().most_nodes({1, 4, 3}), 3);
  EXPECT_EQ(fixture.drafter().most_nodes({1, 4, 30, true}), 7);
  EXPECT_EQ(fixture.drafter().most_nodes({0, 4, 3}), 0);
  request.shape = {1, 2, 0};
  EXPECT_EQ(fixture.draft({request})[0].size(), 5);
  request.shape = {1, 4, 3};
  EXPECT_EQ(fixture.draft({request})[0].size(), 3);
}

// A request's tree is the same bits alone and in a batch, on every backend and with any threads.
TEST(MedusaDrafter, ARequestIsDraftedAsIfItWereAlone) {
  const std::vector<DraftRequest> requests = mixed_requests();
  for (const DrafterConfig& config : {heads(1), heads(2)}) {
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

TEST(MedusaDrafter, RunsInTheFormatsOfItsWeights) {
  const std::vector<DraftRequest> requests = mixed_requests();
  using kernels::WeightFormat;
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kInt8Channel}) {
    const auto reference = kernels::make_reference_backend();
    const auto backend = kernels::make_cpu_backend({});
    EXPECT_EQ(Fixture(heads(1), *backend, format).draft(requests),
              Fixture(heads(1), *reference, format).draft(requests));
  }
}

TEST(MedusaDrafter, ANumberThatIsNotFiniteEmptiesThatTreeAlone) {
  const auto backend = kernels::make_cpu_backend({});
  Fixture fixture(heads(1), *backend);
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

// With the noise that verification will use, the chain of the best tokens is what sampling from the
// heads' own distributions would give.
TEST(MedusaDrafter, TheTreeFollowsTheRequestsNoise) {
  const auto backend = kernels::make_cpu_backend({});
  DrafterConfig config = heads(1);
  config.choices = {{0}, {0, 0}, {0, 0, 0}, {0, 0, 0, 0}};
  Fixture fixture(config, *backend);
  DraftRequest request = mixed_requests()[1];
  request.shape = {1, 4, 0};
  const auto tree = [&] { return fixture.draft({request})[0]; };
  const TokenTree noisy = tree();
  ASSERT_EQ(noisy.size(), 4);
  for (const TreeNode& node : noisy.nodes()) EXPECT_EQ(node.score, 0);
  EXPECT_EQ(tree(), noisy);
  request.sampling.seed = 12;
  EXPECT_NE(tree(), noisy);
  request.sampling.temperature = 0;
  const TokenTree plain = tree();
  EXPECT_NE(plain, noisy);
  request.sampling.seed = 11;
  EXPECT_EQ(tree(), plain);
}

TEST(MedusaDrafter, LookupsPathsAreMergedIntoItsTree) {
  const auto backend = kernels::make_cpu_backend({});
  Fixture fixture(heads(1), *backend);
  LookupDrafter lookup;
  MergedDrafter merged({&fixture.drafter(), &lookup});
  const Tokens tokens = {1, 2, 3, 4, 5, 1, 2};
  DraftRequest request;
  request.tokens = tokens;
  request.shape = {2, 3, 0};
  const std::vector<DraftRequest> requests{request};
  std::vector<TokenTree> trees;
  merged.draft(fixture.batch(requests), trees);
  const TokenTree alone = fixture.draft(requests)[0];
  EXPECT_GT(trees[0].size(), alone.size());
  EXPECT_LE(trees[0].size(), merged.most_nodes(request.shape));
  for (std::int32_t node = 0; node < alone.size(); ++node) {
    EXPECT_EQ(path_to(trees[0], node), path_to(alone, node));
  }
  const std::int32_t three = trees[0].child(TreeNode::kRoot, 3);
  ASSERT_NE(three, TreeNode::kRoot);
  EXPECT_NE(trees[0].child(three, 4), TreeNode::kRoot);
}

/// Gives one matrix for all outputs, as a tied head's source does.
class TiedWeights final : public WeightSource {
 public:
  kernels::MatrixSource matrix(const std::string& name, std::int64_t n,
                               std::int64_t k) const override {
    const bool output = name.ends_with(".1");
    return weights_.matrix(output ? "base" : name, n, k);
  }
  std::vector<float> vector(const std::string& name, std::int64_t n) const override {
    return weights_.vector(name, n);
  }

 private:
  RandomWeights weights_;
};

TEST(MedusaDrafter, TiedHeadsShareOneMatrix) {
  const auto backend = kernels::make_cpu_backend({});
  const TiedWeights weights;
  DrafterConfig config = heads(1);
  MedusaDrafter copies(config, weights, *backend);
  config.tied_head = true;
  MedusaDrafter tied(config, weights, *backend);
  Fixture fixture(config, *backend);
  const std::vector<DraftRequest> requests = mixed_requests();
  std::vector<TokenTree> expected, trees;
  copies.draft(fixture.batch(requests), expected);
  tied.draft(fixture.batch(requests), trees);
  EXPECT_EQ(trees, expected);
}

}  // namespace
}  // namespace paceline::drafter
