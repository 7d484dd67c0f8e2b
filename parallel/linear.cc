#include "parallel/linear.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/core/error.h"

namespace paceline::parallel {
namespace {

/// Vocabulary rows of each rank.
std::vector<IndexRange> vocabulary_parts(const ExchangeWorkspace& exchange,
                                         std::int64_t vocab_size) {
  const auto dealt = vocabulary_shards(vocab_size, exchange.virtual_shards());
  std::vector<IndexRange> parts;
  for (int rank = 0; rank < exchange.size(); ++rank) {
    parts.push_back(
        rank_units(dealt, rank_shards(exchange.virtual_shards(), exchange.size(), rank)));
  }
  return parts;
}

void check_part(const kernels::PackedMatrix& matrix, IndexRange part) {
  check(matrix.rows() == part.size(), "a vocabulary matrix of {} rows where the rank has {}",
        matrix.rows(), part.size());
  check(matrix.reduction().outputs() == 1, "a vocabulary matrix is packed whole");
}

}  // namespace

ExchangeWorkspace::ExchangeWorkspace(kernels::Backend& backend, Communicator& communicator,
                                     int virtual_shards)
    : backend_(backend), communicator_(communicator), virtual_shards_(virtual_shards) {
  check(communicator.size() <= virtual_shards, "{} ranks cannot share {} virtual shards",
        communicator.size(), virtual_shards);
  bytes_.resize(communicator.size());
}

ExchangeWorkspace::Blocks ExchangeWorkspace::prepare(std::span<const std::int64_t> per_row,
                                                     std::int64_t rows) {
  const std::int64_t floats = std::reduce(per_row.begin(), per_row.end()) * rows;
  const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
  if (bytes > buffer_.bytes()) {
    buffer_ = {};
    buffer_ = backend_.allocate(bytes);
  }
  return prepare_in(buffer_.as<float>(), per_row, rows);
}

ExchangeWorkspace::Blocks ExchangeWorkspace::prepare_in(float* all,
                                                        std::span<const std::int64_t> per_row,
                                                        std::int64_t rows) {
  check(per_row.size() == bytes_.size(), "{} blocks for {} ranks", per_row.size(), bytes_.size());
  Blocks blocks{all, all};
  std::size_t total = 0;
  for (std::size_t r = 0; r < per_row.size(); ++r) {
    if (static_cast<int>(r) == rank()) blocks.mine = all + total / sizeof(float);
    bytes_[r] = static_cast<std::size_t>(per_row[r] * rows) * sizeof(float);
    total += bytes_[r];
  }
  all_ = {reinterpret_cast<std::byte*>(all), total};
  return blocks;
}

// The one place where what is on the device is handed to a communicator: those of today read and
// write memory of the host, by way of which other memory goes.
void ExchangeWorkspace::gather() {
  if (size() == 1) return;
  const std::size_t begin = std::reduce(bytes_.begin(), bytes_.begin() + rank());
  const std::size_t mine = bytes_[rank()];
  if (backend_.shares_host_memory()) {
    backend_.synchronize();
    communicator_.all_gather(all_.subspan(begin, mine), all_, bytes_);
    return;
  }
  staged_.resize(std::max(staged_.size(), all_.size()));
  const std::span staged = std::span(staged_).first(all_.size());
  backend_.download(staged.data() + begin, all_.data() + begin, mine);
  communicator_.all_gather(staged.subspan(begin, mine), staged, bytes_);
  const std::size_t end = begin + mine;
  backend_.upload(all_.data(), staged.data(), begin);
  backend_.upload(all_.data() + end, staged.data() + end, staged.size() - end);
}

ColumnParallelLinear::ColumnParallelLinear(kernels::Backend& backend,
                                           const kernels::HostMatrix& weight)
    : backend_(backend), weight_(backend.pack(weight, Reduction::whole(weight.cols))) {}

void ColumnParallelLinear::forward(const float* in, float* out, std::int64_t rows) {
  backend_.linear({.weight = weight_.get(), .in = in, .out = out, .rows = rows});
}

RowParallelLinear::RowParallelLinear(ExchangeWorkspace& exchange, const kernels::HostMatrix& weight,
                                     std::span<const IndexRange> shard_cols, int first_shard)
    : exchange_(exchange), merges_(final_merges(exchange.virtual_shards(), exchange.size())) {
  const IndexRange shards =
      rank_shards(exchange.virtual_shards(), exchange.size(), exchange.rank());
  check(shards.begin == first_shard && shards.size() == std::ssize(shard_cols),
        "the rank has shards [{}, {}), {} from {} on were given", shards.begin, shards.end,
        shard_cols.size(), first_shard);
  check(!shard_cols.empty() && shard_cols.back().end == weight.cols,
        "a row-parallel matrix of {} columns does not end with its last shard", weight.cols);
  weight_ = exchange.backend().pack(
      weight, local_reduction(shard_cols, first_shard, exchange.virtual_shards()));
  for (const int count : subtree_counts(exchange.virtual_shards(), exchange.size())) {
    per_row_.push_back(count * weight.rows);
  }
}

void RowParallelLinear::add(const float* in, float* residual, std::int64_t rows) {
  const ExchangeWorkspace::Blocks partials = exchange_.prepare(per_row_, rows);
  exchange_.backend().linear(
      {.weight = weight_.get(), .in = in, .out = partials.mine, .rows = rows});
  exchange_.gather();
  exchange_.backend().sum_partials({.partials = partials.all,
                                    .merges = merges_,
                                    .size = rows * weight_->rows(),
                                    .residual = residual,
                                    .out = residual});
}

VocabParallelEmbedding::VocabParallelEmbedding(ExchangeWorkspace& exchange,
                                               std::shared_ptr<const kernels::PackedMatrix> table,
                                               std::int64_t vocab_size)
    : exchange_(exchange),
      table_(std::move(table)),
      per_row_(exchange.size(), table_->cols()),
      merges_(exchange.size(), 1) {
  const IndexRange part = vocabulary_parts(exchange, vocab_size)[exchange.rank()];
  check_part(*table_, part);
  first_token_ = static_cast<std::int32_t>(part.begin);
  merges_[0] = 0;
}

void VocabParallelEmbedding::forward(const std::int32_t* tokens, float* out, std::int64_t rows) {
  const bool alone = exchange_.size() == 1;
  const auto blocks =
      alone ? ExchangeWorkspace::Blocks{out, out} : exchange_.prepare(per_row_, rows);
  exchange_.backend().embed({.table = table_.get(),
                             .tokens = tokens,
                             .first_token = first_token_,
                             .out = blocks.mine,
                             .rows = rows});
  if (alone) return;
  exchange_.gather();
  exchange_.backend().sum_partials({.partials = blocks.all,
                                    .merges = merges_,
                                    .size = rows * table_->cols(),
                                    .residual = nullptr,
                                    .out = out});
}

VocabParallelLogits::VocabParallelLogits(ExchangeWorkspace& exchange,
                                         std::shared_ptr<const kernels::PackedMatrix> weight,
                                         std::int64_t vocab_size)
    : exchange_(exchange), weight_(std::move(weight)), vocab_size_(vocab_size) {
  const std::vector<IndexRange> parts = vocabulary_parts(exchange, vocab_size);
  check_part(*weight_, parts[exchange.rank()]);
  for (const IndexRange& part : parts) per_row_.push_back(part.size());
  static_assert(sizeof(kernels::LargestLogit) % sizeof(float) == 0);
  candidate_.assign(parts.size(), sizeof(kernels::LargestLogit) / sizeof(float));
}

void VocabParallelLogits::forward(const float* in, float* out, std::int64_t rows) {
  // For one row the ranks' blocks one after the other are the row.
  const bool direct = exchange_.size() == 1 || rows <= 1;
  const ExchangeWorkspace::Blocks blocks =
      direct ? exchange_.prepare_in(out, per_row_, rows) : exchange_.prepare(per_row_, rows);
  forward_part(in, blocks.mine, rows);
  exchange_.gather();
  if (direct) return;
  // Ranks with 2 and 1 logits, 2 rows: a0 a1 b0 b1 | a2 b2 -> a0 a1 a2, b0 b1 b2.
  const float* block = blocks.all;
  std::int64_t first = 0;
  for (const std::int64_t width : per_row_) {
    exchange_.backend().place_columns({.in = block,
                                       .out = out,
                                       .first = first,
                                       .out_width = vocab_size_,
                                       .rows = rows,
                                       .width = width});
    block += width * rows;
    first += width;
  }
}

void VocabParallelLogits::forward_part(const float* in, float* out, std::int64_t rows) {
  exchange_.backend().linear({.weight = weight_.get(), .in = in, .out = out, .rows = rows});
}

void VocabParallelLogits::largest(const float* part, std::int32_t* tokens, std::int64_t rows) {
  const ExchangeWorkspace::Blocks blocks = exchange_.prepare(candidate_, rows);
  kernels::Backend& backend = exchange_.backend();
  backend.largest_logits({.logits = part,
                          .largest = reinterpret_cast<kernels::LargestLogit*>(blocks.mine),
                          .rows = rows,
                          .vocab = weight_->rows()});
  exchange_.gather();
  found_.resize(static_cast<std::size_t>(rows) * per_row_.size());
  backend.synchronize();
  backend.download(found_.data(), blocks.all, found_.size() * sizeof(kernels::LargestLogit));
  for (std::int64_t row = 0; row < rows; ++row) {
    kernels::LargestLogit best;
    std::int32_t token = -1;
    std::int64_t first_token = 0;
    for (std::size_t r = 0; r < per_row_.size(); ++r) {
      const kernels::LargestLogit& found =
          found_[r * static_cast<std::size_t>(rows) + static_cast<std::size_t>(row)];
      if (found.all_finite == 0) {
        token = -1;
        break;
      }
      if (found.id >= 0 && (token < 0 || found.logit > best.logit)) {
        best = found;
        token = static_cast<std::int32_t>(first_token) + found.id;
      }
      first_token += per_row_[r];
    }
    tokens[row] = token;
  }
}

}  // namespace paceline::parallel
