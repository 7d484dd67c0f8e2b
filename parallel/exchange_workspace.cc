#include "parallel/exchange_workspace.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/core/error.h"
#include "parallel/shards.h"

namespace paceline::parallel {
namespace {

// What an exchange in slices saves must be worth a second exchange: its latency times the bandwidth
// of a rank. Estimates, not measurements. Between GPUs about 10 us (8 to 15 us for a small one on
// NVLink) times 400 GB/s: with 8 ranks that is 49 rows of 4096, with 4 ranks 171; decoding stays
// below, prompts are above. On hosts, through shared memory or sockets, 10 to 50 us times 5 to
// 1 GB/s is less than this. With 2 ranks of one partial each nothing is ever saved.
constexpr std::int64_t kWorthSlicingOnDevices = 4 << 20;
constexpr std::int64_t kWorthSlicingOnHosts = 256 << 10;

// Slices begin at whole cache lines, and are equal for all usual sizes: equal blocks are one
// all-gather for NCCL.
constexpr std::int64_t kSliceAtom = 32;

// NCCL gives memory in such pieces, and a buffer that grows has to be made known to all ranks anew.
constexpr std::size_t kRegisteredPiece = std::size_t{2} << 20;

std::int64_t total_of(const PartialSums& partials) {
  return std::reduce(partials.counts.begin(), partials.counts.end());
}

}  // namespace

ExchangeWorkspace::ExchangeWorkspace(kernels::Backend& backend, Communicator& communicator,
                                     int virtual_shards, std::optional<std::int64_t> worth_slicing)
    : backend_(backend),
      communicator_(communicator),
      virtual_shards_(virtual_shards),
      reduces_(communicator.device() != nullptr && communicator.device()->reduces()),
      worth_slicing_(worth_slicing.value_or(
          communicator.device() != nullptr ? kWorthSlicingOnDevices : kWorthSlicingOnHosts)),
      counts_(communicator.size()),
      bytes_(communicator.size()),
      slices_(communicator.size()) {
  check(communicator.size() <= virtual_shards, "{} ranks cannot share {} virtual shards",
        communicator.size(), virtual_shards);
}

// What a library has recorded of its exchanges must end before its communicator does.
// Graphs with exchanges must be gone before NCCL's communicator. None is under way: whoever runs
// steps waits for them first.
ExchangeWorkspace::~ExchangeWorkspace() {
  if (communicator_.device() == nullptr) return;
  try {
    backend_.forget_repeats();
  } catch (const FatalError&) {
    // The device has failed, which whoever waited for it has been told.
  }
}

// `floats` is the same on all ranks: it follows from how rows, which agree, are dealt to all of
// them. So the buffer grows on all ranks at once and to the same size, as registering it with NCCL
// demands, and what was recorded of the old one they forget at once.
float* ExchangeWorkspace::reserve(std::int64_t floats) {
  const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
  if (bytes <= buffer_.bytes()) return buffer_.as<float>();
  // Graphs that know the buffer go before it does, and none is under way then.
  if (communicator_.device() != nullptr) backend_.synchronize();
  backend_.forget_repeats();
  buffer_ = {};
  if (DeviceExchange* const device = communicator_.device()) {
    const std::size_t pieces = (bytes + kRegisteredPiece - 1) / kRegisteredPiece;
    buffer_ = device->allocate(pieces * kRegisteredPiece);
  }
  if (buffer_.bytes() == 0) buffer_ = backend_.allocate(bytes);
  return buffer_.as<float>();
}

ExchangeWorkspace::Blocks ExchangeWorkspace::prepare(std::span<const std::int64_t> per_row,
                                                     std::int64_t rows) {
  return prepare_in(reserve(std::reduce(per_row.begin(), per_row.end()) * rows), per_row, rows);
}

ExchangeWorkspace::Blocks ExchangeWorkspace::prepare_in(float* all,
                                                        std::span<const std::int64_t> per_row,
                                                        std::int64_t rows) {
  check(per_row.size() == counts_.size(), "{} blocks for {} ranks", per_row.size(), counts_.size());
  Blocks blocks{all, all};
  std::size_t total = 0;
  for (std::size_t r = 0; r < per_row.size(); ++r) {
    if (static_cast<int>(r) == rank()) blocks.mine = all + total;
    counts_[r] = static_cast<std::size_t>(per_row[r] * rows);
    total += counts_[r];
  }
  all_ = {all, total};
  return blocks;
}

// Here and in gather_slices what is on the device is handed to a communicator: as it is where
// devices exchange, else by way of the host's memory.
void ExchangeWorkspace::gather() {
  if (size() == 1) return;
  if (DeviceExchange* const device = communicator_.device()) {
    device->all_gather(all_.data(), counts_);
    return;
  }
  for (std::size_t r = 0; r < counts_.size(); ++r) bytes_[r] = counts_[r] * sizeof(float);
  const std::span<std::byte> all = std::as_writable_bytes(all_);
  const std::size_t begin = std::reduce(bytes_.begin(), bytes_.begin() + rank());
  const std::size_t mine = bytes_[rank()];
  if (backend_.shares_host_memory()) {
    backend_.synchronize();
    communicator_.all_gather(all.subspan(begin, mine), all, bytes_);
    return;
  }
  staged_.resize(std::max(staged_.size(), all.size()));
  const std::span staged = std::span(staged_).first(all.size());
  backend_.download(staged.data() + begin, all.data() + begin, mine);
  communicator_.all_gather(staged.subspan(begin, mine), staged, bytes_);
  const std::size_t end = begin + mine;
  backend_.upload(all.data(), staged.data(), begin);
  backend_.upload(all.data() + end, staged.data() + end, staged.size() - end);
}

void ExchangeWorkspace::gather_slices(const PartialSums& partials, std::int64_t size,
                                      float* received) {
  const float* const mine = buffer_.as<float>();
  if (DeviceExchange* const device = communicator_.device()) {
    for (std::size_t r = 0; r < counts_.size(); ++r) {
      counts_[r] = static_cast<std::size_t>(slices_[r]);
    }
    device->gather_slices(mine, received, partials.counts, counts_);
    return;
  }
  for (std::size_t r = 0; r < bytes_.size(); ++r) {
    bytes_[r] = static_cast<std::size_t>(slices_[r]) * sizeof(float);
  }
  const auto own = static_cast<std::size_t>(partials.counts[rank()] * size);
  const auto all = static_cast<std::size_t>(total_of(partials) * slices_[rank()]);
  const std::span<const std::byte> from = std::as_bytes(std::span(mine, own));
  const std::span<std::byte> to = std::as_writable_bytes(std::span(received, all));
  if (backend_.shares_host_memory()) {
    backend_.synchronize();
    communicator_.gather_slices(from, to, partials.counts, bytes_);
    return;
  }
  staged_.resize(std::max(staged_.size(), from.size()));
  staged_out_.resize(std::max(staged_out_.size(), to.size()));
  backend_.download(staged_.data(), from.data(), from.size());
  communicator_.gather_slices(std::span(staged_).first(from.size()),
                              std::span(staged_out_).first(to.size()), partials.counts, bytes_);
  backend_.upload(to.data(), staged_out_.data(), to.size());
}

PartialSums ExchangeWorkspace::shard_sums() const {
  PartialSums sums;
  if (reduces_) {
    sums = {std::vector<std::int64_t>(size(), 1), std::vector<int>(size(), 1)};
    sums.merges[0] = 0;
    return sums;
  }
  for (const int count : subtree_counts(virtual_shards_, size())) sums.counts.push_back(count);
  sums.merges = final_merges(virtual_shards_, size());
  return sums;
}

// A rank receives the other ranks' partials whole, or of its slice those and then the other slices'
// sums. Computed for the rank with the fewest partials, so that all ranks decide alike.
bool ExchangeWorkspace::in_slices(const PartialSums& partials, std::int64_t elements) const {
  if (size() == 1 || reduces_) return false;
  const std::int64_t others = total_of(partials) - *std::ranges::min_element(partials.counts);
  const std::int64_t slice = (elements + size() - 1) / size();
  const std::int64_t saved = others * elements - (others * slice + elements - slice);
  return saved * static_cast<std::int64_t>(sizeof(float)) >= worth_slicing_;
}

void ExchangeWorkspace::cut_slices(std::int64_t elements) {
  const std::vector<IndexRange> dealt = deal(elements, kSliceAtom, size());
  std::ranges::transform(dealt, slices_.begin(), [](const IndexRange& r) { return r.size(); });
}

float* ExchangeWorkspace::received_behind(const PartialSums& partials,
                                          std::int64_t elements) const {
  const std::int64_t mine = partials.counts[rank()] * elements;
  return buffer_.as<float>() + (mine + kSliceAtom - 1) / kSliceAtom * kSliceAtom;
}

float* ExchangeWorkspace::prepare_sum(const PartialSums& partials, std::int64_t elements) {
  if (reduces_) return reserve(elements);  // each rank has one
  if (!in_slices(partials, elements)) return prepare(partials.counts, elements).mine;
  cut_slices(elements);
  return reserve(*std::ranges::max_element(partials.counts) * elements + kSliceAtom +
                 total_of(partials) * *std::ranges::max_element(slices_));
}

void ExchangeWorkspace::sum(const PartialSums& partials, std::int64_t elements, float* out) {
  if (in_slices(partials, elements)) return sum_slices(partials, elements, nullptr, out);
  const GatheredPartials all = gather_partials(partials, elements);
  backend_.sum_partials({all.partials, all.merges, elements, nullptr, out});
}

void ExchangeWorkspace::add(const PartialSums& partials, std::int64_t elements,
                            ResidualStream& stream) {
  check(stream.pending.merges.empty(), "a sum is added to a residual stream that is not whole");
  if (in_slices(partials, elements)) {
    return sum_slices(partials, elements, stream.x, stream.x);
  }
  stream.pending = gather_partials(partials, elements);
}

void ExchangeWorkspace::settle(ResidualStream& stream, std::int64_t elements) {
  const GatheredPartials pending = std::exchange(stream.pending, {});
  if (pending.merges.empty()) return;
  backend_.sum_partials({pending.partials, pending.merges, elements, stream.x, stream.x});
}

GatheredPartials ExchangeWorkspace::gather_partials(const PartialSums& partials,
                                                    std::int64_t elements) {
  if (!reduces_) {
    gather();
    return {all_.data(), partials.merges};
  }
  static constexpr int kNothingToMerge[] = {0};
  float* const own = buffer_.as<float>();
  communicator_.device()->all_reduce(own, static_cast<std::size_t>(elements));
  return {own, kNothingToMerge};
}

void ExchangeWorkspace::sum_slices(const PartialSums& partials, std::int64_t elements,
                                   const float* residual, float* out) {
  float* const received = received_behind(partials, elements);
  gather_slices(partials, elements, received);
  const Blocks sums = prepare_in(out, slices_, 1);
  backend_.sum_partials({.partials = received,
                         .merges = partials.merges,
                         .size = slices_[rank()],
                         .residual = residual == nullptr ? nullptr : residual + (sums.mine - out),
                         .out = sums.mine});
  gather();
}

}  // namespace paceline::parallel
