#include "kernels/reference/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/float8.h"
#include "kernels/core/flushed_fma.h"
#include "kernels/core/half.h"
#include "kernels/core/quantize.h"
#include "kernels/core/reduction.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

namespace {

class RowMajorMatrix final : public PackedMatrix {
 public:
  RowMajorMatrix(HostMatrix matrix, Reduction reduction)
      : matrix_(std::move(matrix)), reduction_(std::move(reduction)) {
    check_reduction(reduction_, matrix_.format, matrix_.cols);
  }
  WeightFormat format() const override { return matrix_.format; }
  std::int64_t rows() const override { return matrix_.rows; }
  std::int64_t cols() const override { return matrix_.cols; }
  const Reduction& reduction() const override { return reduction_; }
  std::size_t bytes() const override {
    return matrix_.values.size() + matrix_.scales.size() + matrix_.minimums.size();
  }
  const HostMatrix& host() const { return matrix_; }

  /// fp32, bf16, fp16, fp8: the element widened, without its output's scale.
  float element(std::int64_t n, std::int64_t k) const {
    const std::int64_t at = n * matrix_.cols + k;
    if (matrix_.format == WeightFormat::kFp32) return value<float>(matrix_.values, at);
    if (matrix_.format == WeightFormat::kFp8) {
      return fp8_to_fp32(value<std::uint8_t>(matrix_.values, at));
    }
    const auto half = value<std::uint16_t>(matrix_.values, at);
    return matrix_.format == WeightFormat::kBf16 ? bf16_to_fp32(half) : fp16_to_fp32(half);
  }
  /// int8, int4: the stored integer.
  int quant(std::int64_t n, std::int64_t k) const {
    const std::int64_t at = n * matrix_.cols + k;
    if (matrix_.format != WeightFormat::kInt4Group) return value<std::int8_t>(matrix_.values, at);
    return value<std::uint8_t>(matrix_.values, at / 2) >> (at % 2 * 4) & 15;
  }
  float channel_scale(std::int64_t n) const { return value<float>(matrix_.scales, n); }
  float group_scale(std::int64_t n, std::int64_t group) const {
    return fp16_to_fp32(
        value<std::uint16_t>(matrix_.scales, n * (matrix_.cols / kWeightGroup) + group));
  }
  float group_minimum(std::int64_t n, std::int64_t group) const {
    return fp16_to_fp32(
        value<std::uint16_t>(matrix_.minimums, n * (matrix_.cols / kWeightGroup) + group));
  }

 private:
  template <typename T>
  static T value(const std::vector<std::byte>& bytes, std::int64_t index) {
    T loaded;
    std::memcpy(&loaded, bytes.data() + static_cast<std::size_t>(index) * sizeof(T), sizeof(T));
    return loaded;
  }
  HostMatrix matrix_;
  Reduction reduction_;
};

const RowMajorMatrix& row_major(const PackedMatrix* matrix) {
  const auto* own = dynamic_cast<const RowMajorMatrix*>(matrix);
  check(own != nullptr, "the matrix was packed by another backend");
  return *own;
}

// One row of activations, quantized.
struct QuantizedRow {
  std::vector<std::int8_t> q;  // whole groups
  std::vector<float> scales;
  std::vector<std::int32_t> sums;
};

QuantizedRow quantize_row(const float* in, std::int64_t cols, int group) {
  const std::int64_t groups = (cols + group - 1) / group;
  QuantizedRow row{std::vector<std::int8_t>(static_cast<std::size_t>(groups * group)),
                   std::vector<float>(static_cast<std::size_t>(groups)),
                   std::vector<std::int32_t>(static_cast<std::size_t>(groups))};
  for (std::int64_t g = 0; g < groups; ++g) {
    const int count = static_cast<int>(std::min<std::int64_t>(group, cols - g * group));
    row.scales[g] =
        quantize_group(in + g * group, count, group, row.q.data() + g * group, row.sums[g]);
  }
  return row;
}

/// What is multiplied, [M, K]: params.in, or what its input makes of it in `rows`.
const float* input_rows(const LinearParams& params, std::vector<float>& rows) {
  const LinearInput& input = params.input;
  if (input.kind == LinearInput::Kind::kPlain) return params.in;
  const std::int64_t cols = params.weight->cols();
  const std::int64_t size = params.rows * cols;
  rows.resize(static_cast<std::size_t>(size));
  if (input.kind == LinearInput::Kind::kSiluMul) {
    for (std::int64_t m = 0; m < params.rows; ++m) {
      const float* gate = params.in + m * 2 * cols;
      silu_mul(gate, gate + cols, rows.data() + m * cols, cols);
    }
    return rows.data();
  }
  const bool sums = input.kind == LinearInput::Kind::kSumRmsNorm;
  if (sums) sum_partials({input.partials, input.merges, size, params.in, input.sum});
  rms_norm({sums ? input.sum : params.in, input.norm, input.eps, rows.data(), params.rows, cols});
  return rows.data();
}

float dense_chain(const RowMajorMatrix& weight, std::int64_t n, const float* in, IndexRange cols) {
  float acc = 0;
  for (std::int64_t k = cols.begin; k < cols.end; ++k) {
    acc = std::fma(in[k], weight.element(n, k), acc);
  }
  const bool scaled = weight.format() == WeightFormat::kFp8 && cols.size() > 0;
  return scaled ? acc * weight.channel_scale(n) : acc;
}

std::vector<float> round_row(const float* in, std::int64_t cols) {
  std::vector<float> row(static_cast<std::size_t>(cols));
  for (std::int64_t k = 0; k < cols; ++k) row[k] = bf16_to_fp32(fp32_to_bf16(in[k]));
  return row;
}

float bf16_chain(const RowMajorMatrix& weight, std::int64_t n, const float* in, IndexRange cols) {
  float acc = 0;
  for (std::int64_t k = cols.begin; k < cols.end; ++k) {
    acc = flushed_fma(in[k], weight.element(n, k), acc);
  }
  return acc;
}

float integer_chain(const RowMajorMatrix& weight, std::int64_t n, const QuantizedRow& in,
                    IndexRange cols) {
  if (cols.size() == 0) return 0;
  const WeightFormat format = weight.format();
  const std::int64_t group = activation_group(format);
  float acc = 0;
  for (std::int64_t first = cols.begin; first < cols.end; first += group) {
    std::int32_t dot = 0;
    for (std::int64_t k = first; k < std::min(first + group, cols.end); ++k) {
      dot += in.q[k] * weight.quant(n, k);
    }
    const std::int64_t g = first / group;
    const float scale = in.scales[g];
    if (format == WeightFormat::kInt8Channel) {
      acc = std::fma(static_cast<float>(dot), scale, acc);
      continue;
    }
    acc = std::fma(static_cast<float>(dot), scale * weight.group_scale(n, g), acc);
    if (format == WeightFormat::kInt4Group) {
      acc = std::fma(scale * static_cast<float>(in.sums[g]), weight.group_minimum(n, g), acc);
    }
  }
  return format == WeightFormat::kInt8Channel ? acc * weight.channel_scale(n) : acc;
}

}  // namespace

std::unique_ptr<PackedMatrix> pack(const MatrixSource& matrix, const Reduction& reduction) {
  return std::make_unique<RowMajorMatrix>(read_rows(matrix), reduction);
}

void linear(const LinearParams& params) {
  const RowMajorMatrix& weight = row_major(params.weight);
  const Reduction& reduction = weight.reduction();
  const int group = activation_group(weight.format());
  const bool is_bf16 = weight.format() == WeightFormat::kBf16;
  std::vector<float> scratch;
  const float* const rows = input_rows(params, scratch);
  std::vector<float> stack;
  for (std::int64_t m = 0; m < params.rows; ++m) {
    const float* in = rows + m * weight.cols();
    QuantizedRow quantized;
    if (group != 0) quantized = quantize_row(in, weight.cols(), group);
    std::vector<float> rounded;
    if (is_bf16) rounded = round_row(in, weight.cols());
    for (std::int64_t n = 0; n < weight.rows(); ++n) {
      stack.clear();
      for (const Reduction::Segment& segment : reduction.segments) {
        stack.push_back(is_bf16      ? bf16_chain(weight, n, rounded.data(), segment.cols)
                        : group == 0 ? dense_chain(weight, n, in, segment.cols)
                                     : integer_chain(weight, n, quantized, segment.cols));
        for (int merge = 0; merge < segment.merges; ++merge) {
          const float top = stack.back();
          stack.pop_back();
          stack.back() += top;
        }
      }
      for (std::size_t o = 0; o < stack.size(); ++o) {
        params.out[(static_cast<std::int64_t>(o) * params.rows + m) * weight.rows() + n] = stack[o];
      }
    }
  }
}

void embed(const EmbedParams& params) {
  const RowMajorMatrix& table = row_major(params.table);
  for (std::int64_t m = 0; m < params.rows; ++m) {
    float* out = params.out + m * table.cols();
    std::fill_n(out, table.cols(), 0.0f);
    const std::int64_t row = std::int64_t{params.tokens[m]} - params.first_token;
    if (row < 0 || row >= table.rows()) continue;
    const HostMatrix& all = table.host();
    HostMatrix one = make_matrix(all.format, 1, all.cols);
    copy_cols(all.format, rows_of(all).from(row, row_bytes(all.format, all.cols)), all.cols,
              {0, all.cols}, 1, rows_of(one));
    const std::vector<float> values = to_fp32(one);
    for (std::int64_t k = 0; k < table.cols(); ++k) out[k] = values[k] + 0.0f;
  }
}

}  // namespace paceline::kernels::reference
