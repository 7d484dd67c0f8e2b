#include "drafter/training/evaluation.h"

#include <algorithm>

#include "kernels/core/device_memory.h"

namespace paceline::drafter {
namespace {

/// ranks [positions, depth] of one text, as HeadNetwork::evaluate gives them.
struct TextRanks {
  const TeacherRows& text;
  std::span<const std::int32_t> ranks;
  int depth = 0;

  /// Steps from position `index` on whose token is among the `tried` likeliest, all before it too.
  int accepted(std::size_t index, int tried) const {
    int steps = 0;
    while (steps < text.positions[index].steps && ranks[index * depth + steps] < tried) ++steps;
    return steps;
  }
};

/// Tokens that a step adds: those accepted and the one that verification brings, as far as the text
/// goes.
std::int32_t added_tokens(const TeacherRows& text, const DraftPosition& position,
                          std::int32_t accepted) {
  return std::min(accepted + 1, static_cast<std::int32_t>(text.rows) - 1 - position.row);
}

/// The first position of a row from `row` on; positions ascend.
std::size_t position_from(std::span<const DraftPosition> positions, std::int32_t row) {
  const auto found = std::lower_bound(
      positions.begin(), positions.end(), row,
      [](const DraftPosition& position, std::int32_t r) { return position.row < r; });
  return static_cast<std::size_t>(found - positions.begin());
}

/// A walk ends where nothing that can be judged is left.
bool at_end(const TeacherRows& text, std::size_t index) {
  return index == text.positions.size() || text.positions[index].steps == 0;
}

/// Everything that is summed over texts and ranks.
struct Counts {
  explicit Counts(int depth) : reached(depth), accepted(depth) {}

  LossSums loss;
  double positions = 0;
  std::vector<double> reached;   // [depth]: positions whose chain got there
  std::vector<double> accepted;  // [depth]: and was right there
  std::array<double, kTriedTokens.size()> steps{}, tokens{};

  void add(const TextRanks& ranks);
  void sum(RankSums& sums);
};

void Counts::add(const TextRanks& ranks) {
  const TeacherRows& text = ranks.text;
  positions += static_cast<double>(text.positions.size());
  for (std::size_t i = 0; i < text.positions.size(); ++i) {
    const int right = ranks.accepted(i, 1);
    for (int step = 0; step < std::min(right + 1, text.positions[i].steps); ++step) {
      reached[step] += 1;
      accepted[step] += step < right ? 1 : 0;
    }
  }
  for (std::size_t k = 0; k < kTriedTokens.size(); ++k) {
    for (std::size_t i = 0; !at_end(text, i);) {
      const DraftPosition& position = text.positions[i];
      const std::int32_t added = added_tokens(text, position, ranks.accepted(i, kTriedTokens[k]));
      steps[k] += 1;
      tokens[k] += added;
      i = position_from(text.positions, position.row + added);
    }
  }
}

void Counts::sum(RankSums& sums) {
  std::vector<double> all{loss.loss, loss.weight, positions};
  for (const std::span<const double> part :
       {std::span<const double>(reached), std::span<const double>(accepted),
        std::span<const double>(steps), std::span<const double>(tokens)}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  sums.sum(all);
  auto from = all.begin();
  const auto take = [&](double& value) { value = *from++; };
  take(loss.loss);
  take(loss.weight);
  take(positions);
  std::for_each(reached.begin(), reached.end(), take);
  std::for_each(accepted.begin(), accepted.end(), take);
  std::for_each(steps.begin(), steps.end(), take);
  std::for_each(tokens.begin(), tokens.end(), take);
}

/// Tokens of the tree's path that the text goes along.
std::int32_t accepted_tokens(const TokenTree& tree, const TeacherRows& text,
                             const DraftPosition& position) {
  std::int32_t node = TreeNode::kRoot;
  for (std::int32_t step = 0; step < position.steps; ++step) {
    node = tree.child(node, text.next_token[position.row + step + 1]);
    if (node == TreeNode::kRoot) return step;
  }
  return position.steps;
}

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

}  // namespace

Evaluation evaluate(HeadNetwork& network, const HeadTensors& head, TeacherData& data,
                    RankSums& sums, int most_positions) {
  const int depth = network.loss().depth();
  Counts counts(depth);
  TeacherRows text;
  std::vector<std::int32_t> ranks;
  for (int index = 0; index < data.held_out_texts(); ++index) {
    data.held_out(index, text);
    ranks.resize(text.positions.size() * depth);
    for (std::size_t begin = 0; begin < text.positions.size(); begin += most_positions) {
      const std::size_t count =
          std::min<std::size_t>(most_positions, text.positions.size() - begin);
      counts.loss.add(network.evaluate(head, text, std::span(text.positions).subspan(begin, count),
                                       std::span(ranks).subspan(begin * depth, count * depth)));
    }
    counts.add({text, ranks, depth});
  }
  counts.sum(sums);

  Evaluation evaluation;
  evaluation.loss = counts.loss.mean();
  evaluation.positions = counts.positions;
  for (int step = 0; step < depth; ++step) {
    evaluation.acceptance.push_back(ratio(counts.accepted[step], counts.reached[step]));
  }
  for (std::size_t k = 0; k < kTriedTokens.size(); ++k) {
    evaluation.tokens_per_step[k] = ratio(counts.tokens[k], counts.steps[k]);
  }
  return evaluation;
}

DraftSimulation simulate_drafts(Drafter& drafter, kernels::Backend& backend,
                                std::span<const TeacherRows> texts, const DraftShape& shape) {
  DraftSimulation simulation;
  std::vector<std::size_t> at(texts.size());  // the next position of each text
  std::vector<TokenTree> trees;
  kernels::Buffer hidden_memory;
  for (;;) {
    std::vector<float> hidden;
    std::vector<DraftRequest> requests;
    std::vector<std::size_t> going;  // the text of each request
    for (std::size_t t = 0; t < texts.size(); ++t) {
      const TeacherRows& text = texts[t];
      if (at_end(text, at[t])) continue;
      const DraftPosition& position = text.positions[at[t]];
      const std::int64_t width = std::ssize(text.hidden) / text.rows;
      const auto row = text.hidden.begin() + position.row * width;
      hidden.insert(hidden.end(), row, row + width);
      DraftRequest request;
      request.tokens = std::span(text.next_token).first(position.row + 1);
      request.hidden_row = static_cast<std::int32_t>(going.size());
      request.shape = shape;
      request.max_depth = position.steps;
      requests.push_back(request);
      going.push_back(t);
    }
    if (going.empty()) return simulation;
    drafter.draft({kernels::upload<float>(backend, hidden_memory, hidden), requests}, trees);
    for (std::size_t i = 0; i < going.size(); ++i) {
      const TeacherRows& text = texts[going[i]];
      const DraftPosition& position = text.positions[at[going[i]]];
      const std::int32_t added =
          added_tokens(text, position, accepted_tokens(trees[i], text, position));
      ++simulation.steps;
      simulation.tokens += added;
      simulation.nodes += trees[i].size();
      at[going[i]] = position_from(text.positions, position.row + added);
    }
  }
}

}  // namespace paceline::drafter
