// The most probable tokens of a row. Included once per instruction set.

#if defined(PACELINE_KERNELS_CPU_TOP_LOG_PROBS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_TOP_LOG_PROBS_INL_H_
#undef PACELINE_KERNELS_CPU_TOP_LOG_PROBS_INL_H_
#else
#define PACELINE_KERNELS_CPU_TOP_LOG_PROBS_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <limits>

#include "hwy/highway.h"
#include "kernels/core/exact_math.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/select-inl.h"
#include "kernels/params.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The k best tokens of those seen so far. Tokens come by ascending id, so one that only equals the
/// k-th best of k seen before it is never kept: a strict comparison with `bound` passes all that
/// matter. They are gathered unsorted; when the room is full the best k stay and the bound rises.
class TopTokens {
 public:
  struct Token {
    float z;
    std::int32_t id;
  };
  explicit TopTokens(std::int32_t k) : k_(k) {}

  float bound() const { return bound_; }

  void add(float z, std::int32_t id) {
    tokens_[count_++] = {z, id};
    if (count_ == kRoom) keep_best();
  }

  /// Sorts what is kept, best first.
  int finish() {
    if (count_ > k_) keep_best();
    std::sort(tokens_, tokens_ + count_, better);
    return count_;
  }
  const Token& operator[](int i) const { return tokens_[i]; }

 private:
  static constexpr int kRoom = 4 * kMaxTopLogProbs;
  static bool better(const Token& a, const Token& b) {
    return a.z > b.z || (a.z == b.z && a.id < b.id);
  }
  void keep_best() {
    std::nth_element(tokens_, tokens_ + k_ - 1, tokens_ + count_, better);
    bound_ = tokens_[k_ - 1].z;
    count_ = k_;
  }

  Token tokens_[kRoom];
  int k_;
  int count_ = 0;
  float bound_ = -std::numeric_limits<float>::infinity();
};

/// (logit - max) + 0 of every token that may be among the best. Before the bound has risen every
/// token passes, -inf too.
HWY_INLINE void find_top(const float* logits, std::int64_t vocab, float max, TopTokens& top) {
  const FloatTag d;
  const auto largest = hn::Set(d, max);
  alignas(64) float z_of[kWidth];
  bool bounded = false;
  for (std::int64_t id = 0; id < vocab; id += kWidth) {
    const auto z = hn::Add(hn::Sub(load_part(logits, id, vocab), largest), hn::Zero(d));
    const auto inside = hn::FirstN(d, elements_left(id, vocab));
    const auto candidates = bounded ? hn::And(hn::Gt(z, hn::Set(d, top.bound())), inside) : inside;
    if (hn::AllFalse(d, candidates)) continue;
    std::uint8_t bytes[8] = {};
    hn::StoreMaskBits(d, candidates, bytes);
    hn::Store(z, d, z_of);
    for (unsigned bits = bytes[0] | bytes[1] << 8; bits != 0; bits &= bits - 1) {
      const int i = std::countr_zero(bits);
      if (bounded && !(z_of[i] > top.bound())) continue;  // the bound rose on the way
      top.add(z_of[i], static_cast<std::int32_t>(id + i));
      bounded = bounded || top.bound() > -std::numeric_limits<float>::infinity();
    }
  }
}

void top_log_probs(const TopLogProbsParams& params, IndexRange rows) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* logits = params.logits + row * params.vocab;
    float max = 0;
    params.counts[row] = 0;
    if (params.vocab == 0 || !largest_finite(logits, params.vocab, max)) continue;
    TopTokens top(params.k);
    find_top(logits, params.vocab, max, top);
    const int count = top.finish();
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += exact::exp(static_cast<double>(top[i].z));
    const double log_sum = exact::log(sum);
    for (int i = 0; i < count; ++i) {
      params.ids[row * params.k + i] = top[i].id;
      params.log_probs[row * params.k + i] =
          static_cast<float>(static_cast<double>(top[i].z) - log_sum);
    }
    params.counts[row] = count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
