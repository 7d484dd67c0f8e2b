#include "drafter/lookup.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"

namespace paceline::drafter {

LookupDrafter::LookupDrafter(const LookupOptions& options) : options_(options) {
  check(options.min_match > 0 && options.max_match >= options.min_match && options.paths >= 0 &&
            options.paths <= kMaxDraftWidth && options.depth >= 0 &&
            options.depth <= kMaxDraftDepth,
        "lookup of {} to {} equal tokens, {} paths of {}", options.min_match, options.max_match,
        options.paths, options.depth);
}

std::int32_t LookupDrafter::most_nodes(const DraftShape& shape) const {
  if (shape.depth == 0 || (shape.width == 0 && options_.paths == 0)) return 0;
  return limited_nodes(shape, options_.paths > 0 ? options_.paths : shape.width,
                       options_.depth > 0 ? options_.depth : shape.depth);
}

// Best first. Of the matches of one length only the latest `most` are kept.
std::vector<LookupDrafter::Match> LookupDrafter::matches(std::span<const std::int32_t> tokens,
                                                         std::size_t most) const {
  const auto length = static_cast<std::int32_t>(tokens.size());
  std::vector<std::vector<Match>> of_length(static_cast<std::size_t>(options_.max_match) + 1);
  for (std::int32_t next = length - 1; next > 0; --next) {
    const std::int32_t limit = std::min(options_.max_match, next);
    std::int32_t equal = 0;
    while (equal < limit && tokens[next - 1 - equal] == tokens[length - 1 - equal]) ++equal;
    if (equal < options_.min_match || of_length[equal].size() == most) continue;
    of_length[equal].push_back({next, equal});
    if (of_length[options_.max_match].size() == most) break;
  }
  std::vector<Match> best;
  for (auto bucket = of_length.rbegin(); bucket != of_length.rend(); ++bucket) {
    best.insert(best.end(), bucket->begin(), bucket->end());
  }
  return best;
}

TokenTree LookupDrafter::tree(std::span<const std::int32_t> tokens, std::int32_t paths,
                              std::int32_t depth) const {
  // A match that leads where another one has led costs a place, so more are looked at.
  constexpr std::int32_t kSpare = 4;
  TokenTree tree;
  std::int32_t found = 0;
  std::vector<TokenTree::Step> path;
  for (const Match& match : matches(tokens, static_cast<std::size_t>(kSpare * paths))) {
    path.clear();
    double score = 0;
    for (std::int32_t i = 0; i < depth; ++i) {
      const std::size_t at = static_cast<std::size_t>(match.next) + static_cast<std::size_t>(i);
      const std::int32_t token = at < tokens.size() ? tokens[at] : path[at - tokens.size()].token;
      const double seen = match.length + i;
      const auto log_prob = static_cast<float>(kernels::exact::log(seen / (seen + 2)));
      score += log_prob;
      path.push_back({token, log_prob, score});
    }
    const std::int32_t before = tree.size();
    tree.merge(path);
    if (tree.size() > before && ++found == paths) break;
  }
  if (!tree.empty()) tree.count_rows(std::int64_t{found} * (depth + 1));
  return tree;
}

void LookupDrafter::draft(const DraftBatch& batch, std::vector<TokenTree>& trees) {
  trees.resize(batch.requests.size());
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const DraftRequest& request = batch.requests[i];
    const DraftShape shape = checked_shape(request);
    trees[i].clear();
    if (shape.depth == 0 || (shape.width == 0 && options_.paths == 0)) continue;
    const std::int32_t depth =
        options_.depth > 0 ? std::min(options_.depth, request.max_depth) : shape.depth;
    trees[i] = tree(request.tokens, options_.paths > 0 ? options_.paths : shape.width, depth);
    if (shape.max_nodes > 0) trees[i].prune(shape.max_nodes);
    stats_.count(trees[i]);
  }
}

}  // namespace paceline::drafter
