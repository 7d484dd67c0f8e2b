#include "parallel/linear.h"

#include <utility>

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

ColumnParallelLinear::ColumnParallelLinear(kernels::Backend& backend,
                                           const kernels::HostMatrix& weight)
    : backend_(backend), weight_(backend.pack(weight, Reduction::whole(weight.cols))) {}

void ColumnParallelLinear::forward(ResidualStream& x, const RmsNorm& norm, float* out,
                                   std::int64_t rows) {
  using Kind = kernels::LinearInput::Kind;
  const GatheredPartials pending = std::exchange(x.pending, {});
  backend_.linear({.weight = weight_.get(),
                   .in = x.x,
                   .out = out,
                   .rows = rows,
                   .input = {.kind = pending.merges.empty() ? Kind::kRmsNorm : Kind::kSumRmsNorm,
                             .norm = norm.weight,
                             .eps = norm.eps,
                             .partials = pending.partials,
                             .merges = pending.merges,
                             .sum = x.x}});
}

RowParallelLinear::RowParallelLinear(ExchangeWorkspace& exchange, const kernels::HostMatrix& weight,
                                     std::span<const IndexRange> shard_cols, int first_shard)
    : exchange_(exchange), partials_(exchange.shard_sums()) {
  const IndexRange shards =
      rank_shards(exchange.virtual_shards(), exchange.size(), exchange.rank());
  check(shards.begin == first_shard && shards.size() == std::ssize(shard_cols),
        "the rank has shards [{}, {}), {} from {} on were given", shards.begin, shards.end,
        shard_cols.size(), first_shard);
  check(!shard_cols.empty() && shard_cols.back().end == weight.cols,
        "a row-parallel matrix of {} columns does not end with its last shard", weight.cols);
  Reduction reduction = local_reduction(shard_cols, first_shard, exchange.virtual_shards());
  if (exchange.reduces()) reduction.segments.back().merges += reduction.outputs() - 1;
  weight_ = exchange.backend().pack(weight, reduction);
}

void RowParallelLinear::add(const float* in, ResidualStream& x, std::int64_t rows) {
  add(in, {}, x, rows);
}

void RowParallelLinear::add_gated(const float* gate_up, ResidualStream& x, std::int64_t rows) {
  add(gate_up, {.kind = kernels::LinearInput::Kind::kSiluMul}, x, rows);
}

void RowParallelLinear::add(const float* in, const kernels::LinearInput& input, ResidualStream& x,
                            std::int64_t rows) {
  const std::int64_t elements = rows * weight_->rows();
  float* const partials = exchange_.prepare_sum(partials_, elements);
  exchange_.backend().linear(
      {.weight = weight_.get(), .in = in, .out = partials, .rows = rows, .input = input});
  exchange_.add(partials_, elements, x);
}

VocabParallelEmbedding::VocabParallelEmbedding(ExchangeWorkspace& exchange,
                                               std::shared_ptr<const kernels::PackedMatrix> table,
                                               std::int64_t vocab_size)
    : exchange_(exchange),
      table_(std::move(table)),
      partials_{std::vector<std::int64_t>(exchange.size(), 1),
                std::vector<int>(exchange.size(), 1)} {
  const IndexRange part = vocabulary_parts(exchange, vocab_size)[exchange.rank()];
  check_part(*table_, part);
  first_token_ = static_cast<std::int32_t>(part.begin);
  partials_.merges[0] = 0;
}

void VocabParallelEmbedding::forward(const std::int32_t* tokens, float* out, std::int64_t rows) {
  const bool alone = exchange_.size() == 1;
  const std::int64_t elements = rows * table_->cols();
  float* const part = alone ? out : exchange_.prepare_sum(partials_, elements);
  exchange_.backend().embed({.table = table_.get(),
                             .tokens = tokens,
                             .first_token = first_token_,
                             .out = part,
                             .rows = rows});
  if (!alone) exchange_.sum(partials_, elements, out);
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
