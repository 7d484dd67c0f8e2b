#include "runtime/drafting/draft_planner.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"

namespace paceline::runtime {
namespace {

constexpr std::int32_t kWidths[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64};
// Trials are frequent at first and whenever they change the choice.
constexpr std::int32_t kShortestPause = 4;
constexpr std::int32_t kLongestPause = 64;
// Of a trial's expectation in what is remembered.
constexpr double kNewShare = 0.2;
// A trial drafts at most this much longer than the step takes without.
constexpr double kTrialShare = 0.5;
// Of a depth's guesses, where the one before was right, about this share is.
constexpr double kUsualAcceptance = 0.5;
constexpr double kHighestLeastChance = 0.9;

}  // namespace

DraftPlanner::DraftPlanner(StepCosts costs, const drafter::DraftShape& largest)
    : costs_(std::move(costs)), largest_(largest) {
  check(!costs_.step.empty(), "no step was measured");
  largest_.any_candidate = true;
}

DraftPlanner::Load& DraftPlanner::load_of(std::int32_t requests) {
  const auto index = static_cast<std::size_t>(
      std::bit_width(static_cast<std::uint32_t>(std::max(requests, 1))) - 1);
  Load& load = loads_[std::min(index, loads_.size() - 1)];
  if (!load.options.empty()) return load;
  load.pause = kShortestPause;
  load.options.push_back({.width = 0, .depth = largest_.depth});
  if (costs_.draft.empty()) return load;
  const double allowed = kTrialShare * costs_.step_seconds(requests);
  for (const std::int32_t width : kWidths) {
    if (width > largest_.width) break;
    for (std::int32_t depth = 1; depth <= largest_.depth; ++depth) {
      const bool small = width * depth <= 2;
      if (!small && draft_seconds(requests, width, depth) > allowed) break;
      load.options.push_back({.width = width, .depth = depth});
    }
  }
  return load;
}

double DraftPlanner::draft_seconds(std::int32_t requests, std::int32_t width,
                                   std::int32_t depth) const {
  if (width == 0 || depth == 0) return 0;
  return costs_.draft_seconds(requests) + (depth - 1) * costs_.draft_seconds(requests * width);
}

// One more depth of one request's search has to bring as many seconds' tokens as it costs.
double DraftPlanner::least_chance(const Load& load, std::int32_t requests,
                                  std::int32_t width) const {
  if (width == 0 || costs_.draft.empty()) return 0;
  const Option& best = load.options[load.best];
  const double seconds_a_token =
      best.tokens > 0 ? best.seconds / best.tokens : costs_.step_seconds(requests) / requests;
  const double cost = costs_.draft_seconds(requests * width) / requests;
  return std::min(kHighestLeastChance, cost / (kUsualAcceptance * seconds_a_token));
}

drafter::DraftShape DraftPlanner::shape(std::int32_t requests) {
  Load& load = load_of(requests);
  trial_ = --load.until_trial < 0;
  if (trial_) load.until_trial = load.pause;
  planned_for_ = requests;
  current_ = largest_;
  current_.width = trial_ ? 0 : load.options[load.best].width;
  if (trial_) {
    // Every option's beams and depths are among the trial's.
    current_.depth = 1;
    for (const Option& option : load.options) {
      current_.width = std::max(current_.width, option.width);
      if (option.width > 0) current_.depth = std::max(current_.depth, option.depth);
    }
    while (current_.width > 0 && current_.depth > 1 &&
           draft_seconds(requests, current_.width, current_.depth) >
               kTrialShare * costs_.step_seconds(requests)) {
      --current_.depth;
    }
    if (current_.width == 0) current_.depth = largest_.depth;
  } else {
    current_.depth = load.options[load.best].depth;
  }
  current_.least_chance = least_chance(load, requests, current_.width);
  // No more nodes than could pay if each were certain to be accepted.
  const double plain = costs_.step_seconds(requests);
  std::int32_t nodes = largest_.max_nodes;
  while (nodes > 1 && costs_.step_seconds(requests * (1 + nodes)) >
                          plain * (1 + std::min(nodes, drafter::kMaxDraftDepth))) {
    --nodes;
  }
  current_.max_nodes = nodes;
  return current_;
}

std::vector<DraftPlanner::Bid> DraftPlanner::bids(std::span<const drafter::TokenTree> trees) const {
  std::vector<Bid> all;
  std::vector<std::int32_t> order, beams;
  for (std::size_t t = 0; t < trees.size(); ++t) {
    const auto& nodes = trees[t].nodes();
    order.resize(nodes.size());
    for (std::size_t n = 0; n < nodes.size(); ++n) order[n] = static_cast<std::int32_t>(n);
    std::ranges::sort(order, {}, [&](std::int32_t n) {
      const drafter::TreeNode& node = nodes[static_cast<std::size_t>(n)];
      return std::tuple(node.depth, -node.score, n);
    });
    beams.assign(nodes.size(), 0);
    std::int32_t rank = 0, depth = 0;
    for (const std::int32_t n : order) {
      const drafter::TreeNode& node = nodes[static_cast<std::size_t>(n)];
      rank = node.depth == depth ? rank + 1 : 1;
      depth = node.depth;
      beams[static_cast<std::size_t>(n)] = rank;
      const double chance = kernels::exact::exp(node.score);
      const bool drafted_free = (node.sources & 1) == 0 || costs_.draft.empty();
      all.push_back({chance, static_cast<std::int32_t>(t), n, rank,
                     node.parent == drafter::TreeNode::kRoot
                         ? 1
                         : beams[static_cast<std::size_t>(node.parent)],
                     node.depth, drafted_free});
    }
  }
  std::ranges::sort(all, {}, [](const Bid& bid) {
    return std::tuple(-bid.chance, bid.tree, bid.depth, bid.node);
  });
  return all;
}

// What a search would have gone through, by the trees of one that went at least as far.
DraftPlanner::Search DraftPlanner::search(const std::vector<Bid>& bids, std::int32_t requests,
                                          std::int32_t width, std::int32_t depth,
                                          double least_chance) const {
  Search result{std::vector<std::int32_t>(static_cast<std::size_t>(requests), 0), 0};
  if (width == 0 || costs_.draft.empty()) return result;
  // For each tree and depth: how many beams there are, and the chance that one of them is right. At
  // depth 0 that is the root, unless what is free makes the search needless.
  struct Level {
    std::int32_t beams = 0;
    double chance = 0;
  };
  const auto stride = static_cast<std::size_t>(depth) + 1;
  std::vector<Level> levels(static_cast<std::size_t>(requests) * stride);
  for (std::size_t t = 0; t < result.depths.size(); ++t) levels[t * stride] = {1, 1};
  for (const Bid& bid : bids) {
    Level* tree = &levels[static_cast<std::size_t>(bid.tree) * stride];
    if (bid.free) {
      if (bid.depth == 1) tree->chance = std::min(tree->chance, 1 - bid.chance);
    } else if (bid.rank <= width && bid.depth <= depth) {
      ++tree[bid.depth].beams;
      tree[bid.depth].chance += bid.chance;
    }
  }
  for (std::int32_t d = 0; d < depth; ++d) {
    std::int32_t beams = 0;
    for (std::size_t t = 0; t < result.depths.size(); ++t) {
      const Level& level = levels[t * stride + static_cast<std::size_t>(d)];
      if (result.depths[t] < d || level.beams == 0 || level.chance < least_chance) continue;
      result.depths[t] = d + 1;
      beams += level.beams;
    }
    if (beams == 0) break;
    result.seconds += costs_.draft_seconds(beams);
  }
  return result;
}

DraftPlanner::Choice DraftPlanner::choose(const std::vector<Bid>& bids, std::int32_t requests,
                                          std::int32_t other_rows, double spent) const {
  const std::int32_t rows = requests + other_rows;
  Choice best{0, static_cast<double>(requests), spent + costs_.step_seconds(rows)};
  double tokens = best.tokens;
  for (std::size_t n = 0; n < bids.size(); ++n) {
    tokens += bids[n].chance;
    const double seconds = spent + costs_.step_seconds(rows + static_cast<std::int32_t>(n) + 1);
    if (tokens * best.seconds > best.tokens * seconds) best = {n + 1, tokens, seconds};
  }
  return best;
}

// What every option would have come to with the trial's tree: it has the nodes that need no more
// beams and depth than it drafts, and those that nobody has to draft.
void DraftPlanner::weigh(Load& load, const std::vector<Bid>& bids, std::int32_t requests,
                         std::int32_t other_rows) {
  std::vector<Bid> within;
  std::size_t best = 0;
  for (std::size_t o = 0; o < load.options.size(); ++o) {
    Option& option = load.options[o];
    const Search searched = search(bids, requests, option.width, option.depth,
                                   least_chance(load, requests, option.width));
    within.clear();
    for (const Bid& bid : bids) {
      if (bid.free || (bid.beams <= option.width &&
                       bid.depth <= searched.depths[static_cast<std::size_t>(bid.tree)])) {
        within.push_back(bid);
      }
    }
    const Choice choice = choose(within, requests, other_rows, searched.seconds);
    option.tokens += kNewShare * (choice.tokens - option.tokens);
    option.seconds += kNewShare * (choice.seconds - option.seconds);
    const Option& leader = load.options[best];
    if (option.tokens * leader.seconds > leader.tokens * option.seconds) best = o;
  }
  load.pause = best == load.best ? std::min(2 * load.pause, kLongestPause) : kShortestPause;
  load.until_trial = load.pause;
  load.best = best;
}

void DraftPlanner::cut(std::span<drafter::TokenTree> trees, std::int32_t other_rows) {
  const auto requests = static_cast<std::int32_t>(trees.size());
  if (requests == 0) return;
  const std::vector<Bid> all = bids(trees);
  if (trial_ && !all.empty()) weigh(load_of(planned_for_), all, requests, other_rows);
  const Search searched =
      search(all, requests, current_.width, current_.depth, current_.least_chance);
  const Choice choice = choose(all, requests, other_rows, searched.seconds);
  std::vector<std::int32_t> kept(trees.size(), 0);
  for (std::size_t n = 0; n < choice.bids; ++n) ++kept[static_cast<std::size_t>(all[n].tree)];
  for (std::size_t t = 0; t < trees.size(); ++t) trees[t].prune(kept[t]);
}

}  // namespace paceline::runtime
