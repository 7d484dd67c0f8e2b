#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/formats.h"
#include "kernels/core/host_matrix.h"

// One struct per op. M is the number of packed rows of a step. Pointers are device memory of the
// backend that runs the op; on the CPU backends that is ordinary memory. Any count may be zero.

namespace paceline::kernels {

/// How the K inputs of a product are cut and in which order the pieces are added: the contract's
/// first rule. For each segment in turn one FMA chain runs over its columns, ascending, from +0 (an
/// empty segment is +0); its sum is pushed on a stack; then `merges` times the two topmost
/// entries a (below), b (top) are replaced by a + b. What stays on the stack, bottom first, are the
/// product's `outputs` partial sums.
///
/// Example: shards 2, 3, 4 of 8 -> segments {s2, merges 0}, {s3, merges 1}, {s4, merges 0}:
/// the stack ends as [s2 + s3, s4], two partial sums.
struct Reduction {
  struct Segment {
    IndexRange cols;
    int merges = 0;
    bool operator==(const Segment&) const = default;
  };
  std::vector<Segment> segments;

  int outputs() const {
    int depth = 0;
    for (const Segment& segment : segments) depth += 1 - segment.merges;
    return depth;
  }
  /// One chain over all columns: a column-parallel product.
  static Reduction whole(std::int64_t cols) { return {{{{0, cols}, 0}}}; }
  bool operator==(const Reduction&) const = default;
};

/// A weight matrix [n, k] in a backend's own layout.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  virtual WeightFormat format() const = 0;
  virtual std::int64_t rows() const = 0;  // n
  virtual std::int64_t cols() const = 0;  // k
  virtual const Reduction& reduction() const = 0;
  virtual std::size_t bytes() const = 0;
};

/// What is done to `in` before a product rounds or quantizes it: the bits are those of the ops that
/// a kind is named after, one after the other. It is done whatever the number of outputs.
struct LinearInput {
  enum class Kind {
    kPlain,       // nothing; in [M, K]
    kSiluMul,     // in [M, 2 * K]: gate, then up; (gate / (1 + exp(-gate))) * up
    kRmsNorm,     // in [M, K], as RmsNormParams says
    kSumRmsNorm,  // first sum = in + partials, as SumPartialsParams says, then the norm of `sum`
  };
  Kind kind = Kind::kPlain;
  const float* norm = nullptr;  // [K], the norm's weight
  float eps = 0;
  const float* partials = nullptr;   // [merges.size(), M, K]
  std::span<const int> merges = {};  // host memory
  float* sum = nullptr;              // [M, K], may be `in`
};

/// out[o, m, n] = sum over k of in[m, k] * weight[n, k], cut and added as weight.reduction() says,
/// where `in` is what `input` makes of it.
/// fp32, fp16, fp8: acc = fma(in, w, acc), k ascending, w widened to fp32.
/// bf16: the same with `in` rounded to bf16 and denormals flushed (kernels/core/flushed_fma.h).
/// int8/int4: `in` is first quantized per row and activation group (kernels/core/quantize.h); per
/// group the int32 dot product is exact; then, groups ascending, acc = fma(float(dot),
/// in_scale * w_scale, acc) and, for int4, acc = fma(in_scale * float(sum of in_q), minimum, acc).
/// kInt8Channel: acc = fma(float(dot), in_scale, acc). Of it and kFp8 each segment's sum is then
/// multiplied by its output's scale.
struct LinearParams {
  const PackedMatrix* weight = nullptr;  // [N, K]
  const float* in = nullptr;             // [M, K], or as `input` says
  float* out = nullptr;                  // [weight.reduction().outputs(), M, N]
  std::int64_t rows = 0;                 // M
  LinearInput input = {};
};

/// out[m] = table row tokens[m] - first_token as fp32, plus +0 (so -0 becomes +0); a row of +0 if
/// the token is not in [first_token, first_token + table rows).
struct EmbedParams {
  const PackedMatrix* table = nullptr;   // [N, K]
  const std::int32_t* tokens = nullptr;  // [M]
  std::int32_t first_token = 0;
  float* out = nullptr;   // [M, K]
  std::int64_t rows = 0;  // M
};

/// sum = partials[0..count) added as `merges` says (as in Reduction; must leave one);
/// out[i] = residual ? residual[i] + sum : sum. out may be residual.
struct SumPartialsParams {
  const float* partials = nullptr;  // [count, size]
  std::span<const int> merges;      // [count], host memory
  std::int64_t size = 0;            // M * N
  const float* residual = nullptr;  // [size] or null
  float* out = nullptr;             // [size]
};

/// out = (in * (1 / sqrt(sum(in^2) / width + eps))) * weight, the sum in 16 lanes
/// (kernels/core/lanes.h).
struct RmsNormParams {
  const float* in = nullptr;      // [M, width]
  const float* weight = nullptr;  // [width]
  float eps = 0;
  float* out = nullptr;  // [M, width]
  std::int64_t rows = 0;
  std::int64_t width = 0;
};

/// cos[m, i], sin[m, i] of the fp32 product float(positions[m]) * inv_freq[i], computed in double
/// and rounded once.
struct RopeTableParams {
  const std::int32_t* positions = nullptr;  // [M]
  const float* inv_freq = nullptr;          // [head_dim / 2]
  float* cos = nullptr;                     // [M, head_dim / 2]
  float* sin = nullptr;                     // [M, head_dim / 2]
  std::int64_t rows = 0;
  int head_dim = 0;
};

/// One rank's paged key/value cache. For each (page, layer, kv, head), kv 0 = key, 1 = value, in
/// this order and without gaps, the elements [page_size, head_dim] and, in kInt8 alone, right
/// behind them the scales of the slots, fp32 [page_size].
///
/// kInt8 rounds the head_dim elements of a key or value as one group (quantize_group in
/// kernels/core/quantize.h): element ~ q * scale, scale = largest magnitude / 127. One that is not
/// finite has the scale NaN, which spoils every row that sees it. The scale is fp32 so that every
/// finite key and value has a finite scale, rounded once; 16 slots keep everything aligned to 16
/// bytes whatever head_dim is.
struct KvPool {
  std::byte* data = nullptr;
  KvFormat format = KvFormat::kBf16;
  int num_layers = 0;
  int num_heads = 0;  // key/value heads that this rank keeps
  int page_size = 0;  // slots per page, a multiple of 16
  int head_dim = 0;
  std::int32_t num_pages = 0;
};

/// What an op must know of a packed row to find its keys.
struct RowPlace {
  std::int32_t sequence = 0;  // row of the page table
  std::int32_t position = 0;  // the row's own position in its sequence
  std::int32_t slot = 0;  // where its key and value go: slot / page_size-th page of the sequence
  /// Keys of positions [0, base) stand in the slots of the same number; those of positions
  /// [base, position] in slots ancestors[first_ancestor + (t - base)], its own last. A prompt row
  /// or plain decoding has base = position + 1 and no ancestors.
  std::int32_t base = 0;
  std::int32_t first_ancestor = 0;
};

struct PageTable {
  const std::int32_t* pages = nullptr;  // [sequences, stride]
  std::int64_t stride = 0;
};

/// Adds the bias, rotates q and k (rotate-half, Su et al. 2021: x1' = fma(x1, cos, -(x2 * sin)),
/// x2' = fma(x2, cos, x1 * sin)), rounds k and v to the cache's format and stores them. q stays in
/// qkv.
struct RopeAppendParams {
  float* qkv = nullptr;         // [M, (num_heads + 2 * kv.num_heads) * head_dim]: q, then k, then v
  const float* bias = nullptr;  // [(num_heads + 2 * kv.num_heads) * head_dim] or null
  const float* cos = nullptr;   // [M, head_dim / 2]
  const float* sin = nullptr;
  KvPool kv;
  int layer = 0;
  int num_heads = 0;                  // query heads of this rank
  const RowPlace* rows_at = nullptr;  // [M]
  PageTable page_table;
  std::int64_t rows = 0;
};

/// In which numbers attention multiplies: part of the numerics. Both cut the positions that a row
/// sees into segments of kAttentionSegment and merge these from left to right alike.
///
/// kFp32: queries and weights as they are, dots in 16 lanes, online softmax over blocks of
/// kAttentionBlock keys. The exact order is that of kernels/reference/attention.cc.
///
/// kBf16: what a tensor core multiplies, for kBf16 and kInt8 caches and a head_dim that is a
/// multiple of 16. Blocks are of kTensorAttentionBlock keys. In a segment, from m = -inf, l = 0,
/// o = 0, each block does
///   s_j = (dot(bf16(q), k_j) * x_j) * scale   for each visible j; x_j the key's scale, or 1
///   m'  = max(m, max over j of s_j)           a NaN s_j is passed over here; p_j carries it on
///   c   = exp(m - m'), p_j = exp(s_j - m')    p_j = +0 where invisible
///   l   = fma(l, c, (w_0 + w_1) + (w_2 + w_3))  w_i: from +0, p_j of j % 8 / 2 = i, j ascending
///   o   = o * c, then o += bf16(p_j * y_j) * v_j   y_j the value's scale, or 1; v_j = +0 where
///                                                  invisible
///   m   = m'
/// dot adds 16 dimensions at a time to a sum from +0, in the order of attention_dim
/// (kernels/core/attention_order.h); o 16 keys at a time, ascending. Those 16 are one instruction
/// of a tensor core; elsewhere it stands for one chain of flushed_fma (kernels/core/flushed_fma.h).
/// At the end out = O / L + 0: the sign of a zero is not defined before.
enum class AttentionMath { kFp32, kBf16 };

/// Causal attention of every row over its visible keys: the contract's third rule. The CPU backend
/// has kFp32 alone.
struct AttentionParams {
  const float* qkv = nullptr;  // as left by rope_append
  std::int64_t qkv_stride = 0;
  KvPool kv;
  int layer = 0;
  int num_heads = 0;
  const std::int32_t* kv_head = nullptr;  // [num_heads], host memory: cache head of each query head
  float scale = 0;                        // 1 / sqrt(head_dim)
  const RowPlace* rows_at = nullptr;      // [M]
  const std::int32_t* ancestors = nullptr;
  PageTable page_table;
  float* out = nullptr;  // [M, num_heads * head_dim]
  std::int64_t rows = 0;
  AttentionMath math = AttentionMath::kFp32;
};
inline constexpr int kAttentionSegment = 256;
inline constexpr int kAttentionBlock = 16;
inline constexpr int kTensorAttentionBlock = 32;

/// out[r] = in[index[r]].
struct GatherRowsParams {
  const float* in = nullptr;            // [., width]
  const std::int32_t* index = nullptr;  // [rows]
  float* out = nullptr;                 // [rows, width]
  std::int64_t rows = 0;
  std::int64_t width = 0;
};

/// out[r] = (left[left_index[r]], right[r]).
struct JoinRowsParams {
  const float* left = nullptr;               // [., left_width]
  const std::int32_t* left_index = nullptr;  // [rows]
  const float* right = nullptr;              // [rows, right_width]
  float* out = nullptr;                      // [rows, left_width + right_width]
  std::int64_t rows = 0;
  std::int64_t left_width = 0;
  std::int64_t right_width = 0;
};

/// out[r, first + c] = in[r, c]: a block of columns of a wider matrix.
struct PlaceColumnsParams {
  const float* in = nullptr;  // [rows, width]
  float* out = nullptr;       // [rows, out_width]
  std::int64_t first = 0;     // first + width <= out_width
  std::int64_t out_width = 0;
  std::int64_t rows = 0;
  std::int64_t width = 0;
};

enum class Activation { kNone, kSilu };

/// y = in + addend + bias, added in this order, what is null left out;
/// out = residual ? residual + f(y) : f(y), with f(y) = y or y / (1 + exp(-y)).
/// out may be any of the inputs [M, width].
struct ActivateParams {
  const float* in = nullptr;        // [M, width]
  const float* addend = nullptr;    // [M, width] or null
  const float* bias = nullptr;      // [width] or null
  const float* residual = nullptr;  // [M, width] or null
  Activation activation = Activation::kNone;
  float* out = nullptr;  // [M, width]
  std::int64_t rows = 0;
  std::int64_t width = 0;
};

/// The k most probable tokens of every row, under a softmax over those alone.
/// z[id] = (logit[id] - the row's largest) + 0, in fp32. The row's tokens ordered by z, descending,
/// ties to the lower id; the first min(k, vocab) are kept; log_probs = z - log(sum of exp(z)) of
/// the kept, in double, summed in that order and rounded once. A row with a logit that is not
/// finite keeps none. Entries from counts[r] on are not written.
struct TopLogProbsParams {
  const float* logits = nullptr;   // [rows, vocab]
  std::int32_t* ids = nullptr;     // [rows, k]
  float* log_probs = nullptr;      // [rows, k]; -inf if the logit is that far below the largest
  std::int32_t* counts = nullptr;  // [rows]
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
  std::int32_t k = 0;  // 1 ... kMaxTopLogProbs
};
inline constexpr std::int32_t kMaxTopLogProbs = 64;

/// How one row's token is chosen.
struct SamplingRow {
  float temperature = 0;   // 0: greedy
  std::int32_t top_k = 0;  // 0: off
  float top_p = 1;         // 1: off
  std::uint64_t seed = 0;
  std::uint64_t index = 0;  // the sampled token's index in its sequence (prompt included)
};

/// The contract's fourth rule: tokens[r] is a function of (logits[r], sampling[r]) alone; -1 if a
/// logit of the row is not finite. The exact definition is that of kernels/reference/select.cc.
struct SelectTokensParams {
  const float* logits = nullptr;          // [rows, vocab]
  const SamplingRow* sampling = nullptr;  // [rows]
  std::int32_t* tokens = nullptr;         // [rows]
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
};

/// The largest of a row of logits, ties to the lower id.
struct LargestLogit {
  float logit = 0;
  std::int32_t id = -1;         // -1: there is no logit at all
  std::int32_t all_finite = 1;  // 0: one is not finite, and the rest means nothing
};

/// largest[r] = that of logits[r]; ids count from 0.
struct LargestLogitsParams {
  const float* logits = nullptr;    // [rows, vocab]
  LargestLogit* largest = nullptr;  // [rows]
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
};

/// tokens[r] = that of the largest of the parts' largest logits, ties to the earlier part; -1 if
/// one is not finite.
struct MergeLargestParams {
  const LargestLogit* parts = nullptr;      // [num_parts, rows]
  const std::int32_t* first_ids = nullptr;  // [num_parts]: the token that a part's id 0 stands for
  std::int32_t* tokens = nullptr;           // [rows]
  std::int64_t num_parts = 0;
  std::int64_t rows = 0;
};

/// log_probs[r] = log softmax(logits[r])[targets[r]], in double.
struct TokenLogProbsParams {
  const float* logits = nullptr;          // [rows, vocab]
  const std::int32_t* targets = nullptr;  // [rows]
  double* log_probs = nullptr;            // [rows]
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
};

/// *sum = the words' sum modulo 2^64, in whatever order: each is read once and next to nothing is
/// computed, so that the time it takes tells how fast memory can be read (McCalpin 1995, STREAM).
struct SumWordsParams {
  const std::uint64_t* words = nullptr;  // [count]
  std::uint64_t* sum = nullptr;          // [1]
  std::int64_t count = 0;
};

}  // namespace paceline::kernels
