#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "kernels/api.h"
#include "parallel/linear.h"

namespace paceline::parallel {

/// A model of one layer whose attention looks at nothing else, to see that the split layers give
/// the same bits however many ranks there are: x = embed(tokens); x += output(values(norm(x))); x
/// += down(silu(gate(norm(x))) * up(norm(x))); the logits of x.
struct LayerStack {
  std::int64_t hidden = 64;
  std::int64_t heads = 9;  // of head_dim columns, not a multiple of the shards
  std::int64_t head_dim = 32;
  std::int64_t vocab = 100;  // seven atoms, the last one short: the eighth shard is empty
  int virtual_shards = 8;
  kernels::WeightFormat format = kernels::WeightFormat::kFp32;

  kernels::HostMatrix random_matrix(std::int64_t rows, std::int64_t cols, unsigned seed) const {
    std::mt19937 random(seed);
    kernels::HostMatrix matrix{kernels::WeightFormat::kFp32, rows, cols, {}, {}, {}};
    matrix.values.resize(static_cast<std::size_t>(rows * cols) * sizeof(float));
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const float value = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31f;
      std::memcpy(matrix.values.data() + i * sizeof(float), &value, sizeof(value));
    }
    return format == kernels::WeightFormat::kFp32 ? matrix : kernels::convert(matrix, format);
  }

  struct Output {
    std::vector<float> logits;          // [tokens, vocab]
    std::vector<std::int32_t> largest;  // [tokens], as the ranks find it from their parts
  };
  std::vector<float> logits(Communicator& group, const std::vector<std::int32_t>& tokens) const {
    return run(group, tokens).logits;
  }
  /// As computed by this rank of the group. `poison` is written over that logit of row 0, by the
  /// rank that has it, before the largest are looked for.
  Output run(Communicator& group, const std::vector<std::int32_t>& tokens,
             std::optional<std::pair<std::int64_t, float>> poison = {}) const {
    const auto reference = kernels::make_reference_backend();
    kernels::Backend& backend = *reference;
    ExchangeWorkspace exchange(backend, group, virtual_shards);
    const IndexRange shards = rank_shards(virtual_shards, group.size(), group.rank());
    const auto dealt = deal(heads, 1, virtual_shards);
    const IndexRange own = rank_units(dealt, shards);
    const IndexRange cols{own.begin * head_dim, own.end * head_dim};
    const IndexRange words = rank_units(vocabulary_shards(vocab, virtual_shards), shards);
    const auto take = [](const kernels::HostMatrix& matrix, IndexRange rows) {
      return kernels::take_rows(matrix, {&rows, 1});
    };

    const std::shared_ptr<kernels::PackedMatrix> table =
        backend.pack(take(random_matrix(vocab, hidden, 1), words), Reduction::whole(hidden));
    VocabParallelEmbedding embedding(exchange, table, vocab);
    const auto columns = [&](unsigned seed) {
      return take(random_matrix(heads * head_dim, hidden, seed), cols);
    };
    const auto row_parallel = [&](unsigned seed) {
      return RowParallelLinear(
          exchange, kernels::take_cols(random_matrix(hidden, heads * head_dim, seed), cols),
          local_ranges(dealt, shards, head_dim), static_cast<int>(shards.begin));
    };
    ColumnParallelLinear values(backend, columns(2));
    RowParallelLinear attention_out = row_parallel(3);
    const kernels::HostMatrix gate_up[] = {columns(4), columns(5)};
    ColumnParallelLinear gate_and_up(backend, kernels::concat_rows(gate_up));
    RowParallelLinear down = row_parallel(6);
    VocabParallelLogits output(exchange, table, vocab);
    std::vector<float> norm_weight(hidden);
    for (std::int64_t i = 0; i < hidden; ++i) norm_weight[i] = 1.0f + 0.01f * static_cast<float>(i);
    const RmsNorm norm{norm_weight.data(), 1e-5f};

    const auto rows = static_cast<std::int64_t>(tokens.size());
    std::vector<float> x(rows * hidden), y(2 * rows * cols.size()), out(rows * vocab);
    embedding.forward(tokens.data(), x.data(), rows);
    ResidualStream stream{x.data()};
    values.forward(stream, norm, y.data(), rows);
    attention_out.add(y.data(), stream, rows);
    gate_and_up.forward(stream, norm, y.data(), rows);
    down.add_gated(y.data(), stream, rows);
    exchange.settle(stream, rows * hidden);
    output.forward(x.data(), out.data(), rows);
    std::vector<float> part(rows * words.size());
    output.forward_part(x.data(), part.data(), rows);
    if (poison && poison->first >= words.begin && poison->first < words.end) {
      part[static_cast<std::size_t>(poison->first - words.begin)] = poison->second;
    }
    std::vector<std::int32_t> largest(tokens.size());
    output.largest(part.data(), largest.data(), rows);
    return {out, largest};
  }
};

}  // namespace paceline::parallel
