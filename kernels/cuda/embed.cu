#include <cmath>
#include <cstdint>

#include "kernels/core/half.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

namespace paceline::kernels::cuda {
namespace {

__device__ float fp16_at(const void* data, std::int64_t at) {
  return fp16_to_fp32(static_cast<const std::uint16_t*>(data)[at]);
}

/// One element as fp32, as kernels/core/host_matrix.h defines it.
__device__ float decode(const DeviceMatrixView& matrix, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * matrix.cols + col;
  const std::int64_t group = at / kWeightGroup;  // the group formats' rows are whole groups
  switch (matrix.format) {
    case WeightFormat::kFp32:
      return static_cast<const float*>(matrix.values)[at];
    case WeightFormat::kBf16:
      return bf16_to_fp32(static_cast<const std::uint16_t*>(matrix.values)[at]);
    case WeightFormat::kFp16:
      return fp16_at(matrix.values, at);
    case WeightFormat::kInt8Channel:
      return static_cast<const float*>(matrix.scales)[row] *
             static_cast<float>(static_cast<const std::int8_t*>(matrix.values)[at]);
    case WeightFormat::kInt8Group:
      return fp16_at(matrix.scales, group) *
             static_cast<float>(static_cast<const std::int8_t*>(matrix.values)[at]);
    case WeightFormat::kInt4Group: {
      const int pair = static_cast<const std::uint8_t*>(matrix.values)[at / 2];
      return std::fma(fp16_at(matrix.scales, group), static_cast<float>(pair >> (at % 2 * 4) & 15),
                      fp16_at(matrix.minimums, group));
    }
  }
  __trap();
}

__global__ void embed_kernel(const DeviceMatrixView table, const std::int32_t* tokens,
                             std::int32_t first_token, float* out, std::int64_t rows) {
  for (std::int64_t i = first_element(); i < rows * table.cols; i += element_step()) {
    const std::int64_t row = std::int64_t{tokens[i / table.cols]} - first_token;
    const bool inside = row >= 0 && row < table.rows;
    out[i] = inside ? decode(table, row, i % table.cols) + 0.0f : 0.0f;
  }
}

}  // namespace

void embed(const EmbedParams& params, cudaStream_t stream) {
  const auto* table = dynamic_cast<const DeviceMatrix*>(params.table);
  if (table == nullptr) fail("embed: the matrix was packed by another backend");
  launch("embed", shape_of_elements(params.rows * table->cols()), stream, embed_kernel,
         table->view(), params.tokens, params.first_token, params.out, params.rows);
}

}  // namespace paceline::kernels::cuda
