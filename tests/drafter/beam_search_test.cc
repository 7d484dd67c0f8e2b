#include "drafter/beam_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>

#include "kernels/core/error.h"
#include "kernels/core/sampling.h"
#include "tests/drafter/random_tree.h"

namespace paceline::drafter {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// What may follow a path: tokens and log-probabilities, best first.
struct Continuations {
  Tokens tokens;
  std::vector<float> log_probs;
};

/// A drafter's distribution as a function of the path alone.
using Model = std::function<Continuations(const Tokens&)>;

/// What a search comes to.
struct Searched {
  TokenTree tree;
  std::int32_t depth = 0;  // levels that were searched
  BeamSearches::Found found;
};

/// The searches as the drafter runs them, one for each model.
std::vector<Searched> run(kernels::Backend& backend, const std::vector<Model>& models,
                          const std::vector<DraftRequest>& requests) {
  DrafterConfig config;
  config.vocab_size = 1 << 20;
  BeamSearches searches(config, backend);
  const DraftLayout layout = searches.plan(requests);
  std::vector<Searched> results(requests.size());
  std::vector<Tokens> paths;  // of the rows before
  if (!searches.empty()) searches.start();
  while (!searches.empty() && searches.rows().count > 0) {
    const BeamSearches::Rows rows = searches.rows();
    const auto count = static_cast<std::size_t>(rows.count);
    std::vector<Tokens> longer;
    Tokens ids(count * kCandidates), counts;
    std::vector<float> log_probs(count * kCandidates);
    for (std::size_t row = 0; row < count; ++row) {
      Tokens path;
      if (!rows.first) {
        path = paths[rows.parents[row]];
        path.push_back(rows.tokens[row]);
      }
      const Continuations next = models[rows.hidden_rows[row]](path);
      std::copy(next.tokens.begin(), next.tokens.end(), ids.begin() + row * kCandidates);
      std::copy(next.log_probs.begin(), next.log_probs.end(),
                log_probs.begin() + row * kCandidates);
      counts.push_back(static_cast<std::int32_t>(next.tokens.size()));
      results[rows.hidden_rows[row]].depth = static_cast<std::int32_t>(path.size()) + 1;
      longer.push_back(path);
    }
    searches.extend({ids.data(), log_probs.data(), counts.data(), kCandidates});
    paths = longer;
  }
  if (!searches.empty()) searches.merge();
  std::vector<TokenTree> trees;
  const BeamSearches::Found found =
      BeamSearches::read(layout, static_cast<const std::byte*>(searches.found().device), trees);
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i].tree = trees[i];
    results[i].found = found;
  }
  return results;
}

DraftRequest request_of(const DraftShape& shape, const kernels::SamplingRow& sampling,
                        std::int32_t model = 0) {
  static const Tokens root = {0};
  return {.tokens = root, .hidden_row = model, .sampling = sampling, .shape = shape};
}

Searched run(const Model& model, const DraftShape& shape, const kernels::SamplingRow& sampling) {
  const auto backend = kernels::make_reference_backend();
  return run(*backend, {model}, {request_of(shape, sampling)})[0];
}

struct Path {
  Tokens tokens;
  double score = 0;
};

/// The slow way: every continuation of every path, sorted.
std::vector<Path> slow_beams(const Model& model, const DraftShape& shape,
                             const kernels::SamplingRow& sampling) {
  std::vector<Path> beams = {{}};
  for (std::int32_t depth = 0; depth < shape.depth; ++depth) {
    std::vector<Path> next;
    for (const Path& beam : beams) {
      const Continuations found = model(beam.tokens);
      std::map<std::int32_t, double> scores;  // by token
      double largest = -std::numeric_limits<double>::infinity();
      for (std::size_t i = 0; i < found.tokens.size(); ++i) {
        double score = found.log_probs[i];
        if (sampling.temperature > 0) {
          kernels::SamplingRow row = sampling;
          row.index += depth;
          score = score / sampling.temperature + kernels::sampling_noise(row, found.tokens[i]);
        }
        scores[found.tokens[i]] = score;
        largest = std::max(largest, score);
      }
      for (const auto& [token, score] : scores) {
        if (std::isinf(score)) continue;
        Path longer = beam;
        longer.tokens.push_back(token);
        longer.score += sampling.temperature > 0 ? score - largest : score;
        next.push_back(longer);
      }
    }
    std::stable_sort(next.begin(), next.end(),
                     [](const Path& a, const Path& b) { return a.score > b.score; });
    if (next.size() > static_cast<std::size_t>(shape.width)) next.resize(shape.width);
    beams = next;
  }
  return beams;
}

/// A distribution over `vocab` tokens that depends on the path; with `coarse` many are equal.
Model random_model(std::uint32_t seed, int vocab, bool coarse) {
  return [=](const Tokens& path) {
    std::seed_seq sequence(path.begin(), path.end());
    std::uint32_t path_hash = 0;
    sequence.generate(&path_hash, &path_hash + 1);
    std::mt19937 random(seed ^ path_hash);
    std::vector<std::pair<float, std::int32_t>> order;
    for (std::int32_t token = 0; token < vocab; ++token) {
      const float size = static_cast<float>(random() % 1000) / 100;
      const float log_prob = coarse ? -std::floor(size / 3) : -size;
      order.emplace_back(random() % 20 == 0 && token > 0 ? kInfinity : -log_prob, token);
    }
    std::sort(order.begin(), order.end());
    Continuations next;
    for (const auto& [minus_log_prob, token] : order) {
      if (next.tokens.size() == static_cast<std::size_t>(kCandidates)) break;
      next.tokens.push_back(token);
      next.log_probs.push_back(-minus_log_prob);
    }
    return next;
  };
}

TEST(BeamSearch, KeepsTheLargestJointProbabilities) {
  // 1 is likelier than 2 at first, but what follows 2 is certain.
  const Model model = [](const Tokens& path) -> Continuations {
    if (path.empty()) return {{1, 2, 3}, {-0.5f, -1.0f, -2.0f}};
    if (path[0] == 2) return {{5}, {0.0f}};
    return {{7, 8}, {-0.6f, -0.6f}};
  };
  const TokenTree tree = run(model, {.width = 2, .depth = 2}, {}).tree;
  ASSERT_EQ(tree.size(), 4);
  EXPECT_EQ(path_to(tree, 1), (Tokens{2, 5}));
  EXPECT_EQ(tree.nodes()[1], (TreeNode{5, 0, 2, 0.0f, -1.0}));
  EXPECT_EQ(path_to(tree, 3), (Tokens{1, 7}));
  EXPECT_EQ(tree.nodes()[3], (TreeNode{7, 2, 2, -0.6f, -0.5 + double{-0.6f}}));
  EXPECT_EQ(tree.unmerged_rows, 6);
  EXPECT_EQ(tree.saved_rows, 1);
}

// Beams end with 2 5 and 1 7; of all that the search saw 1 8 is next, then 3 alone.
TEST(BeamSearch, AnyCandidateCanBecomeANode) {
  const Model model = [](const Tokens& path) -> Continuations {
    if (path.empty()) return {{1, 2, 3}, {-0.5f, -1.0f, -2.0f}};
    if (path[0] == 2) return {{5}, {0.0f}};
    return {{7, 8}, {-0.6f, -0.7f}};
  };
  const auto paths = [&](std::int32_t most) {
    const TokenTree tree =
        run(model, {.width = 2, .depth = 2, .max_nodes = most, .any_candidate = true}, {}).tree;
    std::vector<Tokens> found;
    for (std::int32_t node = 0; node < tree.size(); ++node) found.push_back(path_to(tree, node));
    return found;
  };
  EXPECT_EQ(paths(3), (std::vector<Tokens>{{1}, {2}, {2, 5}}));
  EXPECT_EQ(paths(5), (std::vector<Tokens>{{1}, {2}, {2, 5}, {1, 7}, {1, 8}}));
  EXPECT_EQ(paths(9), (std::vector<Tokens>{{1}, {2}, {3}, {2, 5}, {1, 7}, {1, 8}}));
}

TEST(BeamSearch, TheBestOfAllCandidatesAreWhatTheSlowWayFinds) {
  std::mt19937 random(8);
  for (int round = 0; round < 60; ++round) {
    const Model model = random_model(static_cast<std::uint32_t>(random()),
                                     2 + static_cast<int>(random() % 60), round % 2 == 0);
    const DraftShape shape{.width = 1 + static_cast<std::int32_t>(random() % 6),
                           .depth = 1 + static_cast<std::int32_t>(random() % 4),
                           .max_nodes = 1 + static_cast<std::int32_t>(random() % 40),
                           .any_candidate = true};
    kernels::SamplingRow sampling;
    sampling.temperature = round % 3 == 0 ? 0.0f : 0.7f;
    sampling.seed = random();
    // Scores of all continuations of the beams of every depth.
    std::vector<double> expected;
    for (std::int32_t depth = 0; depth < shape.depth; ++depth) {
      DraftShape level = shape;
      level.depth = depth;
      const std::vector<Path> beams = slow_beams(model, level, sampling);
      for (const Path& beam : beams) {
        const Model after = [&](const Tokens&) { return model(beam.tokens); };
        kernels::SamplingRow row = sampling;
        row.index += depth;
        for (const Path& next : slow_beams(after, {.width = kCandidates, .depth = 1}, row)) {
          expected.push_back(beam.score + next.score);
        }
      }
    }
    std::sort(expected.rbegin(), expected.rend());
    expected.resize(std::min<std::size_t>(expected.size(), shape.max_nodes));
    const TokenTree tree = run(model, shape, sampling).tree;
    std::vector<double> scores;
    for (const TreeNode& node : tree.nodes()) scores.push_back(node.score);
    std::sort(scores.rbegin(), scores.rend());
    EXPECT_EQ(scores, expected);
  }
}

// Two beams of chance 0.5 and 0.1, then of 0.25 and 0.1: a third depth is wanted by those who are
// content with 0.35.
TEST(BeamSearch, EndsWhereItsBeamsAreUnlikely) {
  const float half = std::log(0.5f);
  const Model model = [&](const Tokens& path) -> Continuations {
    if (path.empty()) return {{1, 2, 3}, {half, std::log(0.1f), std::log(0.05f)}};
    if (path[0] == 2) return {{5}, {0.0f}};
    return {{7}, {half}};
  };
  const auto depth = [&](double least, float temperature) {
    kernels::SamplingRow sampling;
    sampling.temperature = temperature;
    return run(model, {.width = 2, .depth = 4, .least_chance = least}, sampling).depth;
  };
  EXPECT_EQ(depth(0, 0), 4);
  EXPECT_EQ(depth(0.65, 0), 1);
  EXPECT_EQ(depth(0.55, 0), 2);
  EXPECT_EQ(depth(0.34, 0), 3);
  // Scores with the noise of sampling are no chances.
  EXPECT_EQ(depth(0.65, 1), 4);
}

// Equal scores: the better beam's first, then the lower token, however the candidates are ordered.
TEST(BeamSearch, TiesHaveAnOrder) {
  const Model model = [](const Tokens&) -> Continuations { return {{4, 2, 9}, {-1, -1, -1}}; };
  const TokenTree tree = run(model, {.width = 4, .depth = 2}, {}).tree;
  std::vector<Tokens> found;
  for (std::int32_t node = 0; node < tree.size(); ++node) found.push_back(path_to(tree, node));
  EXPECT_EQ(found, (std::vector<Tokens>{{2}, {2, 2}, {2, 4}, {2, 9}, {4}, {4, 2}}));
}

TEST(BeamSearch, ARowThatIsNotFiniteEmptiesTheTree) {
  const Model model = [](const Tokens& path) -> Continuations {
    if (path == Tokens{2}) return {};
    return {{1, 2}, {-0.5f, -0.6f}};
  };
  const Searched searched = run(model, {.width = 2, .depth = 3}, {});
  EXPECT_EQ(searched.found.non_finite, 1);
  EXPECT_EQ(searched.depth, 2);
  EXPECT_TRUE(searched.tree.empty());
}

TEST(BeamSearch, NothingIsDraftedWithoutWidthOrDepth) {
  const Model never = [](const Tokens&) -> Continuations { throw FatalError("searched"); };
  for (const DraftShape& shape : {DraftShape{.width = 0, .depth = 4}, {.width = 4, .depth = 0}}) {
    const Searched searched = run(never, shape, {});
    EXPECT_EQ(searched.found.rows, 0);
    EXPECT_TRUE(searched.tree.empty());
  }
}

// Searches of all shapes at once, ending at different depths, are each what it is alone.
TEST(BeamSearch, SearchesDoNotMindEachOther) {
  std::mt19937 random(9);
  const auto backend = kernels::make_cpu_backend({.threads = 3});
  for (int round = 0; round < 20; ++round) {
    std::vector<Model> models;
    std::vector<DraftRequest> requests;
    for (std::int32_t i = 0; i < 9; ++i) {
      models.push_back(random_model(static_cast<std::uint32_t>(random()),
                                    2 + static_cast<int>(random() % 60), i % 2 == 0));
      if (i % 4 == 3) {  // not finite from some depth on
        models.back() = [depth = random() % 4, model = models.back()](const Tokens& path) {
          return path.size() == depth ? Continuations{} : model(path);
        };
      }
      DraftShape shape{.width = static_cast<std::int32_t>(random() % 7),
                       .depth = static_cast<std::int32_t>(random() % 6)};
      if (random() % 2 == 0) shape.max_nodes = 1 + static_cast<std::int32_t>(random() % 30);
      shape.any_candidate = random() % 2 == 0;
      if (i % 3 == 0) shape.least_chance = 0.3;
      kernels::SamplingRow sampling;
      sampling.temperature = random() % 2 == 0 ? 0.0f : 0.7f;
      sampling.seed = random();
      requests.push_back(request_of(shape, sampling, i));
    }
    const std::vector<Searched> together = run(*backend, models, requests);
    std::int64_t rows = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const Searched alone = run(models[i], requests[i].shape, requests[i].sampling);
      EXPECT_EQ(together[i].tree, alone.tree);
      EXPECT_EQ(together[i].depth, alone.depth);
      rows += alone.found.rows;
    }
    EXPECT_EQ(together[0].found.rows, rows);
  }
}

TEST(BeamSearch, RandomModelsGiveTheSlowWaysBeams) {
  std::mt19937 random(5);
  for (int round = 0; round < 150; ++round) {
    const bool coarse = round % 2 == 0;
    const Model model = random_model(static_cast<std::uint32_t>(random()),
                                     2 + static_cast<int>(random() % 60), coarse);
    const DraftShape shape{.width = 1 + static_cast<std::int32_t>(random() % 12),
                           .depth = 1 + static_cast<std::int32_t>(random() % 5)};
    kernels::SamplingRow sampling;
    sampling.temperature = round % 3 == 0 ? 0.0f : static_cast<float>(random() % 20) / 10;
    sampling.seed = random();
    sampling.index = random() % 1000;
    const TokenTree tree = run(model, shape, sampling).tree;
    const std::vector<Path> expected = slow_beams(model, shape, sampling);

    // The tree: what a walk over the slow beams meets first.
    std::vector<Tokens> met;
    for (const Path& path : expected) {
      for (std::size_t length = 1; length <= path.tokens.size(); ++length) {
        const Tokens prefix(path.tokens.begin(), path.tokens.begin() + length);
        if (std::find(met.begin(), met.end(), prefix) == met.end()) met.push_back(prefix);
      }
    }
    ASSERT_EQ(static_cast<std::size_t>(tree.size()), met.size());
    for (std::int32_t node = 0; node < tree.size(); ++node) {
      EXPECT_EQ(path_to(tree, node), met[node]);
      for (const Path& path : expected) {
        if (path.tokens != met[node]) continue;
        EXPECT_EQ(tree.nodes()[node].score, path.score);
      }
    }
    EXPECT_EQ(tree.unmerged_rows, static_cast<std::int64_t>(expected.size()) * (shape.depth + 1));
    EXPECT_EQ(tree.saved_rows, tree.unmerged_rows - tree.size() - 1);
  }
}

// With the noise that verification will use, one beam is the very text that sampling from the
// drafter's own distribution would give.
TEST(BeamSearch, TheNoisyBeamIsTheSampledText) {
  std::mt19937 random(6);
  for (int round = 0; round < 50; ++round) {
    const Model model = random_model(static_cast<std::uint32_t>(random()), 40, false);
    const kernels::SamplingRow sampling{.temperature = 0.8f, .seed = random(), .index = 17};
    Tokens sampled;
    for (std::uint64_t depth = 0; depth < 4; ++depth) {
      const Continuations next = model(sampled);
      std::vector<float> logits(40, -1e30f);
      for (std::size_t i = 0; i < next.tokens.size(); ++i) {
        if (!std::isinf(next.log_probs[i])) logits[next.tokens[i]] = next.log_probs[i];
      }
      std::int32_t best = 0;
      double best_score = -std::numeric_limits<double>::infinity();
      kernels::SamplingRow row = sampling;
      row.index += depth;
      for (std::int32_t token = 0; token < 40; ++token) {
        const double score =
            logits[token] / double{sampling.temperature} + kernels::sampling_noise(row, token);
        if (score > best_score) {
          best = token;
          best_score = score;
        }
      }
      sampled.push_back(best);
    }
    const TokenTree tree = run(model, {.width = 1, .depth = 4}, sampling).tree;
    ASSERT_EQ(tree.size(), 4);
    EXPECT_EQ(path_to(tree, 3), sampled);
    EXPECT_EQ(tree.nodes()[3].score, 0);
  }
}

}  // namespace
}  // namespace paceline::drafter
