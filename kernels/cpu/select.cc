#include <algorithm>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/core/function_ref.h"
#include "kernels/core/sampling.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/split.h"

namespace paceline::kernels::cpu {
namespace {

constexpr int kMaxParts = 64;

/// Consecutive parts of the vocabulary, each but the last a multiple of 64 tokens, and who works on
/// them: the threads of a pool, or (null) the caller.
class Parts {
 public:
  Parts(std::int64_t vocab, ThreadPool* pool) : vocab_(vocab), pool_(pool) {
    constexpr std::int64_t kLeast = 8192;
    const std::int64_t wanted =
        pool ? std::clamp<std::int64_t>(vocab / kLeast, 1, std::min(pool->threads(), kMaxParts))
             : 1;
    step_ = ((vocab + wanted - 1) / wanted + 63) / 64 * 64;
    count_ = static_cast<int>((vocab + step_ - 1) / step_);
  }

  std::int64_t vocab() const { return vocab_; }
  int count() const { return count_; }

  void each(FunctionRef<void(int, IndexRange)> body) const {
    const auto part = [&](int i) {
      body(i, IndexRange{i * step_, std::min((i + 1) * step_, vocab_)});
    };
    if (count_ > 1) {
      pool_->run(count_, part);
    } else {
      part(0);
    }
  }

 private:
  std::int64_t vocab_;
  ThreadPool* pool_;
  std::int64_t step_ = 0;
  int count_ = 0;
};

LargestLogit largest_of(const float* logits, const Parts& parts, const RowOps& ops) {
  LargestLogit found[kMaxParts];
  parts.each([&](int i, IndexRange ids) { found[i] = ops.largest_logit(logits, ids); });
  LargestLogit largest = found[0];
  for (int i = 0; i < parts.count(); ++i) {
    if (found[i].all_finite == 0) return found[i];
    if (found[i].logit > largest.logit) largest = found[i];
  }
  return largest;
}

/// Calls choose(row, parts) for all rows: few rows are cut into parts, many dealt to the threads.
template <typename Choose>
void for_logits(std::int64_t rows, std::int64_t vocab, ThreadPool& pool, const Choose& choose) {
  if (rows < pool.threads()) {
    const Parts parts(vocab, &pool);
    for (std::int64_t row = 0; row < rows; ++row) choose(row, parts);
  } else {
    const Parts whole(vocab, nullptr);
    split(pool, rows, rows_of(4096, vocab), 1, [&](IndexRange range) {
      for (std::int64_t row = range.begin; row < range.end; ++row) choose(row, whole);
    });
  }
}

/// Chooses one row's token: kernels/core/sampling.h.
class RowSelection {
 public:
  RowSelection(const float* logits, const SamplingRow& sampling, const Parts& parts,
               const RowOps& ops)
      : logits_(logits), sampling_(sampling), parts_(parts), ops_(ops) {}

  std::int32_t token() {
    top_ = largest_of(logits_, parts_, ops_);
    if (top_.all_finite == 0) return -1;
    if (!(sampling_.temperature > 0)) return top_.id;
    cut_ = {-std::numeric_limits<float>::infinity(), std::numeric_limits<std::int32_t>::max()};
    if (sampling_.top_k > 0 || sampling_.top_p < 1) find_cut();
    NoisyBest best[kMaxParts];
    const NoisyBest start = first_bound();
    parts_.each([&](int i, IndexRange ids) {
      best[i] = ops_.noisy_best(logits_, ids, top_.logit, sampling_, cut_, start);
    });
    return std::ranges::min_element(best, best + parts_.count(),
                                    [](const NoisyBest& a, const NoisyBest& b) {
                                      return a.score > b.score ||
                                             (a.score == b.score && a.id < b.id);
                                    })
        ->id;
  }

 private:
  // The score of a kept token: the largest logit's, whose t is 0. (At a temperature so high that
  // others' t rounds to 0 as well it can be cut off by a lower id.)
  NoisyBest first_bound() const {
    const bool top_kept = cut_.t < 0 || top_.id <= cut_.id;
    const std::int32_t id = top_kept ? top_.id : cut_.id;
    return {sampling_noise(sampling_, static_cast<std::uint32_t>(id)), id};
  }

  // Both limits keep a prefix of the tokens ordered by t, so that it is enough to find the bins in
  // which the prefixes end, and the last token in those.
  void find_cut() {
    fill_bins();
    std::int32_t last_bin = NucleusBins::kBins - 1;  // the last with kept tokens
    std::vector<RankedToken> last_tokens;            // those, if top-k cuts the bin
    if (sampling_.top_k > 0) {
      std::uint64_t before = 0;
      const auto k = static_cast<std::uint64_t>(sampling_.top_k);
      std::int32_t bin = 0;
      while (bin < last_bin && before + bins_->count[bin] < k) before += bins_->count[bin++];
      if (bin < last_bin) {
        last_bin = bin;
        last_tokens = tokens_of(bin);
        const auto last = last_tokens.begin() + static_cast<std::ptrdiff_t>(k - before - 1);
        std::ranges::nth_element(last_tokens, last, better);
        cut_ = {last->t, last->id};
        last_tokens.erase(last + 1, last_tokens.end());
        bins_->weight[bin] = weight(last_tokens);
      }
    }
    if (sampling_.top_p < 1) find_nucleus(last_bin, last_tokens);
  }

  void find_nucleus(std::int32_t last_bin, std::vector<RankedToken>& last_tokens) {
    std::uint64_t total = 0;
    for (std::int32_t bin = 0; bin <= last_bin; ++bin) total += bins_->weight[bin];
    const auto enough = [&](std::uint64_t prefix) {
      return reaches_nucleus(prefix, total, sampling_.top_p);
    };
    std::uint64_t prefix = 0;
    std::int32_t bin = 0;
    while (bin < last_bin && !enough(prefix + bins_->weight[bin])) prefix += bins_->weight[bin++];
    std::vector<RankedToken> tokens =
        bin == last_bin && !last_tokens.empty() ? std::move(last_tokens) : tokens_of(bin);
    // Halve until one is left: the last token of the nucleus.
    for (std::span<RankedToken> left = tokens; !left.empty();) {
      const std::size_t half = (left.size() - 1) / 2;
      std::ranges::nth_element(left, left.begin() + static_cast<std::ptrdiff_t>(half), better);
      const std::uint64_t more = weight(left.first(half + 1));
      if (!enough(prefix + more)) {
        prefix += more;
        left = left.subspan(half + 1);
      } else if (half > 0) {
        left = left.first(half + 1);
      } else {
        cut_ = {left[0].t, left[0].id};
        return;
      }
    }
  }

  static bool better(const RankedToken& a, const RankedToken& b) {
    return a.t > b.t || (a.t == b.t && a.id < b.id);
  }

  static std::uint64_t weight(std::span<const RankedToken> tokens) {
    std::uint64_t sum = 0;
    for (const RankedToken& token : tokens) sum += token.weight;
    return sum;
  }

  void fill_bins() {
    const auto bins = std::make_unique<NucleusBins[]>(parts_.count());
    parts_.each([&](int i, IndexRange ids) {
      ops_.nucleus_bins(logits_, ids, top_.logit, sampling_.temperature, bins[i]);
    });
    bins_ = std::make_unique<NucleusBins>();
    for (int i = 0; i < parts_.count(); ++i) {
      for (std::int32_t bin = 0; bin < NucleusBins::kBins; ++bin) {
        bins_->count[bin] += bins[i].count[bin];
        bins_->weight[bin] += bins[i].weight[bin];
      }
    }
  }

  std::vector<RankedToken> tokens_of(std::int32_t bin) const {
    std::vector<RankedToken> tokens(bins_->count[bin]);
    ops_.tokens_in_bin(logits_, {0, parts_.vocab()}, top_.logit, sampling_.temperature, bin,
                       tokens.data());
    return tokens;
  }

  const float* logits_;
  const SamplingRow& sampling_;
  const Parts& parts_;
  const RowOps& ops_;
  LargestLogit top_;
  SelectionCut cut_;
  std::unique_ptr<NucleusBins> bins_;
};

}  // namespace

void select_tokens(const SelectTokensParams& params, const RowOps& ops, ThreadPool& pool) {
  if (params.vocab == 0) {
    std::fill_n(params.tokens, params.rows, -1);
    return;
  }
  for_logits(params.rows, params.vocab, pool, [&](std::int64_t row, const Parts& parts) {
    params.tokens[row] =
        RowSelection(params.logits + row * params.vocab, params.sampling[row], parts, ops).token();
  });
}

void largest_logits(const LargestLogitsParams& params, const RowOps& ops, ThreadPool& pool) {
  if (params.vocab == 0) {
    std::fill_n(params.largest, params.rows, LargestLogit{});
    return;
  }
  for_logits(params.rows, params.vocab, pool, [&](std::int64_t row, const Parts& parts) {
    params.largest[row] = largest_of(params.logits + row * params.vocab, parts, ops);
  });
}

void merge_largest(const MergeLargestParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    params.tokens[row] = largest_of_parts(params, row);
  }
}

}  // namespace paceline::kernels::cpu
