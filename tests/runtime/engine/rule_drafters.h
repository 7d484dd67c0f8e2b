#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "drafter/drafter.h"
#include "kernels/core/philox.h"
#include "runtime/engine/sequence.h"
#include "tests/runtime/model/fixture_model.h"

namespace paceline::runtime {

using Ids = std::vector<std::int32_t>;

/// Tokens that rules guess, and that prompts have, are below this; every tiny model has more.
inline constexpr std::int32_t kGuessed = 90;

/// Guesses by rule, without a model.
class RuleDrafter : public drafter::Drafter {
 public:
  void draft(const drafter::DraftBatch& batch, std::vector<drafter::TokenTree>& trees) override {
    trees.resize(batch.requests.size());
    for (std::size_t i = 0; i < trees.size(); ++i) {
      trees[i].clear();
      drafter::DraftRequest request = batch.requests[i];
      request.shape = drafter::checked_shape(request);
      for (std::int32_t n = 0; n < most_nodes(request.shape); ++n) guess(request, n, trees[i]);
    }
  }
  std::int32_t most_nodes(const drafter::DraftShape& shape) const override {
    return drafter::limited_nodes(shape, shape.width, shape.depth);
  }
  const drafter::DraftStats& stats() const override { return stats_; }

 protected:
  /// Adds node n, or nothing.
  virtual void guess(const drafter::DraftRequest& request, std::int32_t n,
                     drafter::TokenTree& tree) = 0;

 private:
  drafter::DraftStats stats_;
};

/// Random trees of random tokens.
class RandomDrafter final : public RuleDrafter {
  void guess(const drafter::DraftRequest& request, std::int32_t n,
             drafter::TokenTree& tree) override {
    const auto random = kernels::philox(
        {static_cast<std::uint32_t>(request.tokens.size()), static_cast<std::uint32_t>(n), 0, 0},
        {7, 7});
    const std::int32_t parent = static_cast<std::int32_t>(random[0] % (n + 1u)) - 1;
    const auto token = static_cast<std::int32_t>(random[1] % kGuessed);
    if (parent >= tree.size()) return;
    const std::int32_t depth =
        parent < 0 ? 1 : tree.nodes()[static_cast<std::size_t>(parent)].depth + 1;
    if (depth > request.shape.depth) return;
    if (tree.child(parent, token) == drafter::TreeNode::kRoot) tree.add(parent, token, 0, 0);
  }
};

/// A chain of one token for ever.
class StubbornDrafter final : public RuleDrafter {
 public:
  explicit StubbornDrafter(std::int32_t token = 3) : token_(token) {}

 private:
  void guess(const drafter::DraftRequest& request, std::int32_t n,
             drafter::TokenTree& tree) override {
    if (n < request.shape.depth) tree.add(n - 1, token_, 0, 0);
  }
  std::int32_t token_;
};

/// Knows the answers of requests, which it tells apart by their seeds.
class KnowingDrafter : public RuleDrafter {
 public:
  KnowingDrafter(const std::vector<EngineRequest>& requests, const Answers& answers) {
    for (const EngineRequest& request : requests) {
      Ids whole = request.prompt;
      const Ids& answer = answers.at(request.uid);
      whole.insert(whole.end(), answer.begin(), answer.end());
      known_.emplace_back(request.seed, std::move(whole));
    }
  }

 protected:
  /// The token that comes `ahead` after the last known one (from 0); -1: there is none.
  std::int32_t next(const drafter::DraftRequest& request, std::int32_t ahead) const {
    const auto whole = std::find_if(known_.begin(), known_.end(), [&](const auto& entry) {
      return entry.first == request.sampling.seed;
    });
    const std::size_t index = request.tokens.size() + static_cast<std::size_t>(ahead);
    return whole == known_.end() || index >= whole->second.size() ? -1 : whole->second[index];
  }

 private:
  std::vector<std::pair<std::uint64_t, Ids>> known_;
};

/// Every guess is right, with a wrong one before it (always `wrong`, if that is a token), so that
/// accepted keys and values have to be moved into place.
class Oracle final : public KnowingDrafter {
 public:
  Oracle(const std::vector<EngineRequest>& requests, const Answers& answers,
         std::int32_t wrong = -1)
      : KnowingDrafter(requests, answers), wrong_(wrong) {}

 private:
  void guess(const drafter::DraftRequest& request, std::int32_t n,
             drafter::TokenTree& tree) override {
    if (n % 2 == 1) return;  // two at a time
    const std::int32_t right = next(request, n / 2);
    if (right < 0 || n / 2 >= request.shape.depth || n + 1 >= most_nodes(request.shape)) return;
    const std::int32_t parent = n == 0 ? drafter::TreeNode::kRoot : tree.size() - 1;
    tree.add(parent, wrong_ >= 0 ? wrong_ : (right + 1) % kGuessed, 0, 0);
    tree.add(parent, right, 0, 0);
  }
  std::int32_t wrong_;
};

/// Always wrong: a chain that begins with a wrong token, below which everything is right.
class Liar final : public KnowingDrafter {
 public:
  using KnowingDrafter::KnowingDrafter;

 private:
  void guess(const drafter::DraftRequest& request, std::int32_t n,
             drafter::TokenTree& tree) override {
    const std::int32_t right = next(request, n);
    if (right < 0 || n >= request.shape.depth) return;
    tree.add(n - 1, n == 0 ? (right + 1) % kGuessed : right, 0, 0);
  }
};

/// Nine requests, greedy and sampled, with prompts of 1 to 89 tokens and answers of 1 to 33.
inline std::vector<EngineRequest> mixed_requests() {
  std::vector<EngineRequest> made;
  for (std::uint64_t uid = 0; uid < 9; ++uid) {
    EngineRequest request;
    request.uid = uid;
    for (std::uint64_t i = 0; i <= uid * 11; ++i) {
      request.prompt.push_back(static_cast<std::int32_t>((i * 31 + uid * 7) % kGuessed));
    }
    request.max_new_tokens = static_cast<std::int32_t>(1 + uid * 4);
    constexpr float kTemperatures[] = {0.0f, 0.3f, 1.0f, 1.5f};
    request.temperature = kTemperatures[uid % 4];
    request.top_k = uid % 3 == 1 ? 20 : 0;
    request.top_p = uid % 3 == 2 ? 0.8f : 1.0f;
    request.seed = 1000 + uid;
    made.push_back(request);
  }
  return made;
}

/// Room for all of them and for their drafts.
inline constexpr SchedulerLimits kAmple{.max_sequences = 8,
                                        .max_rows = 512,
                                        .page_size = kPageSize,
                                        .num_pages = 64,
                                        .max_sampled = 400};

}  // namespace paceline::runtime
