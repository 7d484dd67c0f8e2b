#include "runtime/training/training_order.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

enum Purpose : std::uint32_t { kTexts, kWindows };

/// Random numbers that the C++ standard fixes, for one purpose.
std::mt19937_64 random_numbers(std::uint64_t seed, Purpose purpose, std::uint64_t epoch,
                               std::uint64_t group = 0, int replica = 0) {
  const auto half = [](std::uint64_t value, int shift) {
    return static_cast<std::uint32_t>(value >> shift);
  };
  std::seed_seq sequence{
      half(seed, 0),   half(seed, 32), std::uint32_t{purpose}, half(epoch, 0),
      half(epoch, 32), half(group, 0), half(group, 32),        static_cast<std::uint32_t>(replica)};
  return std::mt19937_64(sequence);
}

/// Fisher and Yates; std::shuffle differs from library to library.
template <typename T>
void shuffle(std::vector<T>& items, std::mt19937_64 random) {
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random() % i]);
}

}  // namespace

TrainingOrder::TrainingOrder(std::vector<std::int32_t> positions, const OrderOptions& options)
    : positions_(std::move(positions)), options_(options) {
  check(std::ranges::any_of(positions_, [](std::int32_t count) { return count > 0; }),
        "{} texts without a position to train on", positions_.size());
  epoch_.number = ~std::uint64_t{0};
}

const TrainingOrder::Epoch& TrainingOrder::epoch(std::uint64_t number) {
  if (epoch_.number == number) return epoch_;
  epoch_ = {};
  epoch_.number = number;
  epoch_.texts.resize(positions_.size());
  std::iota(epoch_.texts.begin(), epoch_.texts.end(), 0);
  shuffle(epoch_.texts, random_numbers(options_.seed, kTexts, number));
  std::int64_t held = 0;
  epoch_.group_begins.push_back(0);
  for (std::size_t i = 0; i < epoch_.texts.size(); ++i) {
    held += positions_[static_cast<std::size_t>(epoch_.texts[i])];
    if (held < options_.group_positions && i + 1 < epoch_.texts.size()) continue;
    epoch_.group_begins.push_back(i + 1);
    held = 0;
  }
  epoch_.group_starts.push_back(0);
  for (std::size_t group = 0; group + 1 < epoch_.group_begins.size(); ++group) {
    const std::int64_t count = group_minibatches(group_positions(epoch_, group));
    epoch_.group_starts.push_back(epoch_.group_starts.back() + static_cast<std::uint64_t>(count));
  }
  return epoch_;
}

std::int64_t TrainingOrder::group_positions(const Epoch& epoch, std::size_t group) const {
  std::int64_t sum = 0;
  for (std::size_t i = epoch.group_begins[group]; i < epoch.group_begins[group + 1]; ++i) {
    sum += positions_[static_cast<std::size_t>(epoch.texts[i])];
  }
  return sum;
}

// None only where there are no positions.
std::int64_t TrainingOrder::group_minibatches(std::int64_t positions) const {
  const std::int64_t half = options_.batch_positions / 2;
  const std::int64_t rounded = (positions + half) / options_.batch_positions;
  return positions > 0 ? std::max<std::int64_t>(1, rounded) : 0;
}

std::uint64_t TrainingOrder::minibatches(std::uint64_t epochs) {
  while (epoch_starts_.size() <= epochs) {
    const std::uint64_t next = epoch_starts_.size() - 1;
    epoch_starts_.push_back(epoch_starts_.back() + epoch(next).group_starts.back());
  }
  return epoch_starts_[epochs];
}

TrainingOrder::Place TrainingOrder::place(std::uint64_t minibatch) {
  while (epoch_starts_.back() <= minibatch) minibatches(epoch_starts_.size());
  const auto after = [](const std::vector<std::uint64_t>& starts, std::uint64_t index) {
    return static_cast<std::size_t>(std::ranges::upper_bound(starts, index) - starts.begin()) - 1;
  };
  Place place;
  place.epoch = after(epoch_starts_, minibatch);
  const std::uint64_t within = minibatch - epoch_starts_[place.epoch];
  const std::vector<std::uint64_t>& starts = epoch(place.epoch).group_starts;
  place.group = after(starts, within);
  place.minibatch = static_cast<std::int64_t>(within - starts[place.group]);
  return place;
}

std::vector<std::int32_t> TrainingOrder::texts(std::uint64_t number, std::size_t group,
                                               int replica) {
  const Epoch& of = epoch(number);
  std::vector<std::int32_t> texts;
  for (std::size_t i = of.group_begins[group]; i < of.group_begins[group + 1]; ++i) {
    if (of.texts[i] % options_.replicas == replica) texts.push_back(of.texts[i]);
  }
  return texts;
}

const TrainingOrder::Dealt& TrainingOrder::dealt(std::uint64_t number, std::size_t group,
                                                 int replica) {
  if (dealt_.replica == replica && dealt_.epoch == number && dealt_.group == group) return dealt_;
  std::vector<Window> windows;
  for (const std::int32_t text : texts(number, group, replica)) {
    const std::int32_t count = positions_[static_cast<std::size_t>(text)];
    for (std::int32_t first = 0; first < count; first += options_.window) {
      windows.push_back({text, first, std::min(options_.window, count - first)});
    }
  }
  shuffle(windows, random_numbers(options_.seed, kWindows, number, group, replica));
  dealt_ = {number, group, replica, {}};
  const auto ranks = static_cast<std::size_t>(options_.ranks_per_replica);
  dealt_.by_rank.resize(ranks);
  for (std::size_t i = 0; i < windows.size(); ++i) dealt_.by_rank[i % ranks].push_back(windows[i]);
  return dealt_;
}

std::vector<Window> TrainingOrder::windows(const Place& at, int replica, int rank) {
  const std::int64_t count = group_minibatches(group_positions(epoch(at.epoch), at.group));
  const std::vector<Window>& mine =
      dealt(at.epoch, at.group, replica).by_rank[static_cast<std::size_t>(rank)];
  std::int64_t total = 0;
  for (const Window& window : mine) total += window.positions;
  const std::int64_t begin = total * at.minibatch / count;
  const std::int64_t end = total * (at.minibatch + 1) / count;
  std::vector<Window> part;
  std::int64_t passed = 0;
  for (const Window& window : mine) {
    const std::int64_t from = std::max(begin - passed, std::int64_t{0});
    const std::int64_t to = std::min<std::int64_t>(end - passed, window.positions);
    passed += window.positions;
    if (from >= to) continue;
    part.push_back({window.text, window.first + static_cast<std::int32_t>(from),
                    static_cast<std::int32_t>(to - from)});
  }
  return part;
}

}  // namespace paceline::runtime
