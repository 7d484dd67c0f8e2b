#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/drafter/slow_acceptance.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/drafting/apple_golden.h"

// The beams, log-probabilities, prefix trees and greedy generations that Apple's code computes.

namespace paceline::runtime {
namespace {

using drafter::TokenTree;
using drafter::TreeNode;
using Ids = std::vector<std::int32_t>;

class AppleDrafters : public testing::TestWithParam<const char*> {
 protected:
  static const Json& cases() {
    static const Json all = read_json(apple_golden_dir() / "cases.json");
    return all.at("drafters").at(GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(Golden, AppleDrafters, testing::ValuesIn(kAppleDrafters));

/// Trees of a beam search case's requests, all in one batch.
std::vector<TokenTree> draft(AppleRank& rank, kernels::Backend& backend, const Json& beam_case) {
  const auto tokens = beam_case.at("init_token").get<Ids>();
  std::vector<float> hidden;
  for (const Json& row : beam_case.at("context_hidden")) {
    const auto values = row.get<std::vector<float>>();
    hidden.insert(hidden.end(), values.begin(), values.end());
  }
  const kernels::Buffer device = backend.allocate(hidden.size() * sizeof(float));
  backend.upload(device.as<void>(), hidden.data(), device.bytes());
  std::vector<drafter::DraftRequest> requests;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    requests.push_back(
        {.tokens = std::span(tokens).subspan(i, 1),
         .hidden_row = static_cast<std::int32_t>(i),
         .shape = {.width = beam_case.at("beam_width").get<std::int32_t>(),
                   .depth = beam_case.at("beam_length_with_init").get<std::int32_t>() - 1}});
  }
  std::vector<TokenTree> trees;
  rank.drafter().draft({device.as<float>(), requests}, trees);
  return trees;
}

/// Apple's rows are the init token, then the nodes, then padding.
void expect_tree(const TokenTree& tree, const Json& beam_case, std::size_t request) {
  const auto of = [&](const char* key) -> const Json& { return beam_case.at(key).at(request); };
  const auto unpacker = of("unpacker").get<std::vector<Ids>>();
  std::int32_t last = 0;
  for (const Ids& beam : unpacker)
    last = std::max(last, *std::max_element(beam.begin(), beam.end()));
  ASSERT_EQ(tree.size(), last);
  const drafter::AncestorLists lists = ancestor_lists(tree);
  for (std::int32_t node = 0; node < tree.size(); ++node) {
    const auto row = static_cast<std::size_t>(node) + 1;
    EXPECT_EQ(tree.nodes()[node].token, of("packed_tokens").at(row).get<std::int32_t>());
    EXPECT_EQ(tree.nodes()[node].depth, of("position_offsets").at(row).get<std::int32_t>());
    Ids seen(static_cast<std::size_t>(last) + 1, 0);
    seen[0] = 1;
    for (std::int32_t i = 0; i < tree.nodes()[node].depth; ++i) {
      seen[static_cast<std::size_t>(lists.nodes[lists.first[node] + i]) + 1] = 1;
    }
    auto mask = of("tree_mask").at(row).get<Ids>();
    mask.resize(seen.size());
    EXPECT_EQ(seen, mask) << "row " << row;
  }
  const auto beams = of("beams").get<std::vector<Ids>>();
  EXPECT_EQ(tree.unmerged_rows, static_cast<std::int64_t>(beams.size() * beams[0].size()));
  EXPECT_EQ(tree.saved_rows, tree.unmerged_rows - last - 1);
}

TEST_P(AppleDrafters, BeamsTreesAndLogProbabilities) {
  constexpr float kMaxError = 1e-4f;
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  AppleRank rank(GetParam(), *backend, *single);
  float worst = 0;
  for (const Json& beam_case : cases().at("beam_search")) {
    SCOPED_TRACE("width " + beam_case.at("beam_width").dump() + ", length " +
                 beam_case.at("beam_length_with_init").dump());
    const std::vector<TokenTree> trees = draft(rank, *backend, beam_case);
    for (std::size_t request = 0; request < trees.size(); ++request) {
      expect_tree(trees[request], beam_case, request);
      const auto beams = beam_case.at("beams").at(request).get<std::vector<Ids>>();
      const Json& log_probs = beam_case.at("token_log_probs").at(request);
      for (std::size_t beam = 0; beam < beams.size(); ++beam) {
        std::int32_t node = TreeNode::kRoot;
        for (std::size_t i = 1; i < beams[beam].size(); ++i) {
          node = trees[request].child(node, beams[beam][i]);
          ASSERT_NE(node, TreeNode::kRoot) << "beam " << beam << ", token " << i;
          worst = std::max(worst, std::fabs(trees[request].nodes()[node].log_prob -
                                            log_probs.at(beam).at(i - 1).get<float>()));
        }
      }
    }
  }
  EXPECT_LE(worst, kMaxError);
  RecordProperty("max_error", std::to_string(worst));
}

TEST_P(AppleDrafters, TreesAreTheSameBitsOnEveryBackendAndNumberOfRanks) {
  const Json& beam_case = cases().at("beam_search").back();
  const auto single = parallel::make_single();
  const auto reference = kernels::make_reference_backend();
  for (const WeightChoice weights :
       {WeightChoice::kFp32, WeightChoice::kBf16, WeightChoice::kInt8}) {
    AppleRank oracle(GetParam(), *reference, *single, weights);
    const std::vector<TokenTree> expected = draft(oracle, *reference, beam_case);
    for (const std::string_view isa : kernels::supported_isas()) {
      const auto backend = kernels::make_cpu_backend({.threads = 2, .isa = std::string(isa)});
      AppleRank rank(GetParam(), *backend, *single, weights);
      EXPECT_EQ(draft(rank, *backend, beam_case), expected) << isa;
    }
    parallel::run_ranks(3, [&](parallel::Communicator& communicator) {
      const auto backend = kernels::make_cpu_backend({});
      AppleRank rank(GetParam(), *backend, communicator, weights);
      EXPECT_EQ(draft(rank, *backend, beam_case), expected) << "rank " << communicator.rank();
    });
  }
}

/// Greedy generation by drafting, verifying a tree in one packed batch, and moving what was
/// accepted into place: the engine's step, one sequence and nothing else.
class SlowGeneration {
 public:
  SlowGeneration(AppleRank& rank, kernels::Backend& backend, Ids prompt, std::size_t length)
      : rank_(rank), backend_(backend), tokens_(std::move(prompt)), length_(length) {
    accept_after(TokenTree());
  }

  const Ids& tokens() const { return tokens_; }
  std::int32_t length() const { return static_cast<std::int32_t>(tokens_.size()); }
  bool finished() const { return tokens_.size() == length_; }

  void step(const drafter::DraftShape& shape) {
    const kernels::Buffer hidden = backend_.allocate(hidden_.size() * sizeof(float));
    backend_.upload(hidden.as<void>(), hidden_.data(), hidden.bytes());
    const drafter::DraftRequest request{.tokens = tokens_, .shape = shape};
    std::vector<TokenTree> trees;
    rank_.drafter().draft({hidden.as<float>(), {&request, 1}}, trees);
    accept_after(trees[0]);
  }

 private:
  // Feeds what is pending and the tree, chooses a token after the last known one and every node.
  void accept_after(const TokenTree& tree) {
    const std::int32_t root = length() - 1;
    const PackedBatch batch = pack(tree);
    const float* hidden = rank_.model().forward(batch, rank_.cache().pool());
    const std::int64_t sampled = tree.size() + 1;
    const Ids chosen = choose(rank_.model().logits(hidden, sampled), sampled);
    const drafter::Accepted accepted = slow_accept(tree, chosen, [&](std::int32_t token) {
      tokens_.push_back(token);
      return finished();
    });
    const std::int32_t last_row = accepted.nodes.empty() ? 0 : accepted.nodes.back() + 1;
    const auto width = static_cast<std::size_t>(rank_.model().config().hidden_size);
    hidden_.resize(width);
    backend_.download(hidden_.data(), hidden + static_cast<std::size_t>(last_row) * width,
                      width * sizeof(float));
    move_into_place(accepted.nodes, root, batch);
  }

  PackedBatch pack(const TokenTree& tree) {
    PackedBatch batch;
    const std::int32_t root = length() - 1;
    const drafter::AncestorLists lists = ancestor_lists(tree);
    for (const std::int32_t node : lists.nodes) batch.ancestors.push_back(root + 1 + node);
    for (; computed_ <= root; ++computed_) {
      batch.tokens.push_back(tokens_[static_cast<std::size_t>(computed_)]);
      batch.positions.push_back(computed_);
      batch.rows.push_back({0, computed_, computed_, computed_ + 1, 0});
    }
    batch.sampled_rows.push_back(static_cast<std::int32_t>(batch.size()) - 1);
    for (std::int32_t node = 0; node < tree.size(); ++node) {
      const TreeNode& at = tree.nodes()[node];
      batch.sampled_rows.push_back(static_cast<std::int32_t>(batch.size()));
      batch.tokens.push_back(at.token);
      batch.positions.push_back(root + at.depth);
      batch.rows.push_back({0, root + at.depth, root + 1 + node, root + 1, lists.first[node]});
    }
    batch.page_stride = 16;
    for (std::int32_t page = 0; page < 16; ++page) batch.page_table.push_back(page);
    return batch;
  }

  Ids choose(const float* logits, std::int64_t rows) {
    const std::vector<kernels::SamplingRow> greedy(static_cast<std::size_t>(rows));
    const kernels::Buffer sampling = backend_.allocate(greedy.size() * sizeof(greedy[0]));
    const kernels::Buffer chosen = backend_.allocate(greedy.size() * sizeof(std::int32_t));
    backend_.upload(sampling.as<void>(), greedy.data(), sampling.bytes());
    backend_.select_tokens({.logits = logits,
                            .sampling = sampling.as<kernels::SamplingRow>(),
                            .tokens = chosen.as<std::int32_t>(),
                            .rows = rows,
                            .vocab = rank_.model().config().vocab_size});
    Ids tokens(greedy.size());
    backend_.download(tokens.data(), chosen.as<void>(), chosen.bytes());
    return tokens;
  }

  void move_into_place(const Ids& nodes, std::int32_t root, const PackedBatch& batch) {
    kernels::AcceptedPath path{.first_slot = root + 1, .count = static_cast<int>(nodes.size())};
    std::ranges::copy(nodes, path.nodes);
    computed_ += path.count;
    backend_.compact_kv({.kv = rank_.cache().pool(),
                         .page_table = {batch.page_table.data(), batch.page_stride},
                         .paths = &path,
                         .count = 1});
  }

  AppleRank& rank_;
  kernels::Backend& backend_;
  Ids tokens_;
  std::size_t length_;
  std::int32_t computed_ = 0;  // tokens whose keys and values stand in the cache
  std::vector<float> hidden_;  // of the row that the last token was chosen from
};

TEST_P(AppleDrafters, GeneratesTheSameTokensInTheSameSteps) {
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  AppleRank rank(GetParam(), *backend, *single);
  for (const Json& generate : cases().at("generate")) {
    const drafter::DraftShape shape{
        .width = generate.at("beam_width").get<std::int32_t>(),
        .depth = generate.at("beam_length_with_init").get<std::int32_t>() - 1};
    if (generate.contains("prompt")) {
      const auto output = generate.at("output").get<Ids>();
      SlowGeneration generation(rank, *backend, generate.at("prompt").get<Ids>(), output.size());
      Ids lengths;
      while (!generation.finished()) {
        generation.step(shape);
        lengths.push_back(generation.length());
      }
      EXPECT_EQ(generation.tokens(), output);
      EXPECT_EQ(lengths, generate.at("length_after_each_step").get<Ids>());
      continue;
    }
    for (std::size_t i = 0; i < generate.at("prompts").size(); ++i) {
      const auto expected = generate.at("autoregressive").at(i).get<Ids>();
      const auto prompt = generate.at("prompts").at(i).get<Ids>();
      SlowGeneration plain(rank, *backend, prompt, expected.size());
      while (!plain.finished()) plain.step({});
      EXPECT_EQ(plain.tokens(), expected);
      SlowGeneration drafted(rank, *backend, prompt, expected.size());
      while (!drafted.finished()) drafted.step(shape);
      EXPECT_EQ(drafted.tokens(), expected);
    }
  }
}

}  // namespace
}  // namespace paceline::runtime
