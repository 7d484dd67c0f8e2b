#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "drafter/drafter.h"
#include "drafter/token_tree.h"
#include "runtime/drafting/step_costs.h"

namespace paceline::runtime {

/// Chooses how much is drafted in each step so that most tokens are expected per second: what a
/// step costs is known by measurement, what a drafted token is worth by the chance that its drafter
/// has learnt (AcceptanceCalibration). Nothing at all is drafted where that is best: in large
/// batches, by bad drafters.
///
/// Deterministic, from equal costs and trees: ranks agree without asking each other.
class DraftPlanner {
 public:
  /// `largest`: the beams and depth, and the nodes for one request, never to be exceeded.
  DraftPlanner(StepCosts costs, const drafter::DraftShape& largest);

  /// The shape for a step in which `requests` requests are in generation. Mostly what was found
  /// best for such a load; now and then a larger one, to see what others would bring.
  drafter::DraftShape shape(std::int32_t requests);

  /// Cuts the step's trees to the nodes that are worth their rows. trees: of all requests in
  /// generation, some maybe empty, as `shape` had them drafted; other_rows: prompts' in the step.
  void cut(std::span<drafter::TokenTree> trees, std::int32_t other_rows);

 private:
  /// A shape that is weighed: 0 beams are the drafts that cost nothing.
  struct Option {
    std::int32_t width = 0;
    std::int32_t depth = 0;
    // What steps with it came to, in expectation; old ones fade.
    double tokens = 0;
    double seconds = 0;
  };
  /// Loads that are alike: numbers of requests of the same power of two.
  struct Load {
    std::vector<Option> options;
    std::size_t best = 0;
    std::int32_t until_trial = 0;  // steps
    std::int32_t pause = 0;        // between the last two trials
  };
  /// A node that competes for a row.
  struct Bid {
    double chance = 0;
    std::int32_t tree = 0;
    std::int32_t node = 0;
    std::int32_t rank = 0;   // among the nodes of its depth: as a beam it needs a search of so many
    std::int32_t beams = 0;  // the rank of its parent
    std::int32_t depth = 0;
    bool free = false;  // no head drafted it
  };
  /// What a search of some shape comes to.
  struct Search {
    std::vector<std::int32_t> depths;  // of each tree
    double seconds = 0;
  };
  struct Choice {
    std::size_t bids = 0;  // the best so many of them
    double tokens = 0;
    double seconds = 0;
  };

  Load& load_of(std::int32_t requests);
  double draft_seconds(std::int32_t requests, std::int32_t width, std::int32_t depth) const;
  double least_chance(const Load& load, std::int32_t requests, std::int32_t width) const;
  std::vector<Bid> bids(std::span<const drafter::TokenTree> trees) const;
  Search search(const std::vector<Bid>& bids, std::int32_t requests, std::int32_t width,
                std::int32_t depth, double least_chance) const;
  Choice choose(const std::vector<Bid>& bids, std::int32_t requests, std::int32_t other_rows,
                double spent) const;
  void weigh(Load& load, const std::vector<Bid>& bids, std::int32_t requests,
             std::int32_t other_rows);

  StepCosts costs_;
  drafter::DraftShape largest_;
  std::array<Load, 16> loads_;
  drafter::DraftShape current_;
  bool trial_ = false;
  std::int32_t planned_for_ = 0;  // requests
};

}  // namespace paceline::runtime
