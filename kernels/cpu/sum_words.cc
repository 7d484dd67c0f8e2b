#include <atomic>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/split.h"

namespace paceline::kernels::cpu {
namespace {

constexpr std::int64_t kLine = 64 / sizeof(std::uint64_t);

// Eight sums, a cache line's worth, so that no addition waits for the one before. The compiler's
// own vectors are fast enough for any memory.
std::uint64_t sum_of(const std::uint64_t* words, std::int64_t count) {
  std::uint64_t sums[kLine] = {};
  std::int64_t i = 0;
  for (; i + kLine <= count; i += kLine) {
    for (std::int64_t lane = 0; lane < kLine; ++lane) sums[lane] += words[i + lane];
  }
  for (; i < count; ++i) sums[0] += words[i];
  for (std::int64_t lane = 1; lane < kLine; ++lane) sums[0] += sums[lane];
  return sums[0];
}

}  // namespace

void sum_words(const SumWordsParams& params, ThreadPool& pool) {
  std::atomic<std::uint64_t> sum = 0;
  constexpr std::int64_t kLeastWords = 4096;
  split(pool, params.count, kLeastWords, kLine, [&](IndexRange words) {
    sum.fetch_add(sum_of(params.words + words.begin, words.size()), std::memory_order_relaxed);
  });
  *params.sum = sum.load(std::memory_order_relaxed);
}

}  // namespace paceline::kernels::cpu
