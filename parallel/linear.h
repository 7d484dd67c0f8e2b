#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/api.h"
#include "parallel/exchange_workspace.h"
#include "parallel/shards.h"

// The layers of a model that know that there are other ranks (Shoeybi et al. 2019, Megatron-LM). M
// is the number of packed rows; pointers are the backend's device memory. All ranks of the
// communicator call the same layers with the same M. Results do not depend on the number of ranks.

namespace paceline::parallel {

/// RMSNorm (Zhang & Sennrich 2019), as kernels::RmsNormParams says.
struct RmsNorm {
  const float* weight = nullptr;  // [K], device memory
  float eps = 0;
};

/// out = norm(x) * W^T where this rank keeps some rows of W, that is some columns of out: nothing
/// to exchange.
class ColumnParallelLinear {
 public:
  /// `weight` [N_rank, K]
  ColumnParallelLinear(kernels::Backend& backend, const kernels::HostMatrix& weight);
  /// x [M, K], whole after this; out [M, N_rank]
  void forward(ResidualStream& x, const RmsNorm& norm, float* out, std::int64_t rows);
  const kernels::PackedMatrix& weight() const { return *weight_; }

 private:
  kernels::Backend& backend_;
  std::unique_ptr<kernels::PackedMatrix> weight_;
};

/// x += in * W^T where this rank keeps the columns of W that its shards hold: partial sums
/// per subtree of shards, exchanged and added in the order that parallel/shards.h fixes.
class RowParallelLinear {
 public:
  /// `weight` [N, K_rank]; `shard_cols` are the columns of this rank's shards, the first of which
  /// is `first_shard` (local_ranges()).
  RowParallelLinear(ExchangeWorkspace& exchange, const kernels::HostMatrix& weight,
                    std::span<const IndexRange> shard_cols, int first_shard);
  /// in [M, K_rank], x [M, N]
  void add(const float* in, ResidualStream& x, std::int64_t rows);
  /// x += (silu(gate) * up) * W^T; gate_up [M, 2 * K_rank]: gate, then up.
  void add_gated(const float* gate_up, ResidualStream& x, std::int64_t rows);
  const kernels::PackedMatrix& weight() const { return *weight_; }

 private:
  void add(const float* in, const kernels::LinearInput& input, ResidualStream& x,
           std::int64_t rows);

  ExchangeWorkspace& exchange_;
  std::unique_ptr<kernels::PackedMatrix> weight_;
  PartialSums partials_;
};

/// The rows of tokens where each rank keeps those of its part of the vocabulary
/// (vocabulary_shards). Exactly one rank has a token's row and the others +0, so that the sum is
/// the row.
class VocabParallelEmbedding {
 public:
  /// `table` [this rank's part of the vocabulary, K], packed whole
  VocabParallelEmbedding(ExchangeWorkspace& exchange,
                         std::shared_ptr<const kernels::PackedMatrix> table,
                         std::int64_t vocab_size);
  /// tokens [M], out [M, K]
  void forward(const std::int32_t* tokens, float* out, std::int64_t rows);

 private:
  ExchangeWorkspace& exchange_;
  std::shared_ptr<const kernels::PackedMatrix> table_;
  std::int32_t first_token_ = 0;
  PartialSums partials_;
};

/// Logits over the whole vocabulary, on every rank, where each computes those of its part. `weight`
/// may be the embedding's table.
class VocabParallelLogits {
 public:
  /// `weight` [this rank's part of the vocabulary, K], packed whole
  VocabParallelLogits(ExchangeWorkspace& exchange,
                      std::shared_ptr<const kernels::PackedMatrix> weight, std::int64_t vocab_size);
  /// in [M, K], out [M, vocab]
  void forward(const float* in, float* out, std::int64_t rows);
  /// This rank's part only: out [M, its part of the vocabulary], nothing is exchanged.
  void forward_part(const float* in, float* out, std::int64_t rows);
  /// The token of the largest logit of each row, ties to the lower, on every rank, from their parts
  /// (not changed): what greedy decoding needs, 12 bytes a row and rank instead of the vocabulary.
  /// -1 where a logit is not finite. tokens [M] is the host's.
  void largest(const float* part, std::int32_t* tokens, std::int64_t rows);

 private:
  ExchangeWorkspace& exchange_;
  std::shared_ptr<const kernels::PackedMatrix> weight_;
  std::int64_t vocab_size_ = 0;
  std::vector<std::int64_t> per_row_;    // logits of each rank
  std::vector<std::int64_t> candidate_;  // floats of one candidate, for each rank
  std::vector<kernels::LargestLogit> found_;
};

}  // namespace paceline::parallel
