#include "drafter/training/rank_sums.h"

#include <algorithm>
#include <cstring>

namespace paceline::drafter {

RankSums::RankSums(parallel::Communicator& group, std::size_t chunk)
    : group_(group), chunk_(chunk) {}

void RankSums::sum(std::span<float> values) { sum_chunks(values); }
void RankSums::sum(std::span<double> values) { sum_chunks(values); }

template <typename T>
void RankSums::sum_chunks(std::span<T> values) {
  const auto ranks = static_cast<std::size_t>(group_.size());
  if (ranks == 1) return;
  for (std::size_t begin = 0; begin < values.size(); begin += chunk_) {
    const std::span<T> part = values.subspan(begin, std::min(chunk_, values.size() - begin));
    gathered_.resize(ranks * part.size_bytes());
    group_.all_gather(std::as_bytes(part), gathered_,
                      std::vector<std::size_t>(ranks, part.size_bytes()));
    std::memcpy(part.data(), gathered_.data(), part.size_bytes());
    std::vector<T> next(part.size());
    for (std::size_t rank = 1; rank < ranks; ++rank) {
      std::memcpy(next.data(), gathered_.data() + rank * part.size_bytes(), part.size_bytes());
      for (std::size_t i = 0; i < part.size(); ++i) part[i] += next[i];
    }
  }
}

}  // namespace paceline::drafter
