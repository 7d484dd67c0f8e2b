#include <cmath>
#include <cstdint>

#include "kernels/core/float8.h"
#include "kernels/core/half.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

namespace paceline::kernels::cuda {
namespace {

template <typename T>
__device__ T value_at(const std::byte* at) {
  return *reinterpret_cast<const T*>(at);
}

/// One element as fp32, as kernels/core/host_matrix.h defines it.
__device__ float decode(const DeviceMatrixView& matrix, std::int64_t row, std::int64_t col) {
  const StepLayout layout = step_layout(matrix.format);
  const DeviceSegment* segment = matrix.segments;
  while (col >= segment->first_col + segment->cols) ++segment;
  const std::int64_t in_segment = col - segment->first_col;
  const int output = static_cast<int>(row % kPanel);
  const std::byte* step = matrix.steps + (row / kPanel * matrix.panel_steps + segment->first_step +
                                          in_segment / layout.inputs) *
                                             layout.bytes;
  const std::byte* at =
      step + weight_offset(matrix.format, output, static_cast<int>(in_segment % layout.inputs));
  const std::byte* scale = step + layout.values + output * 2;
  switch (matrix.format) {
    case WeightFormat::kFp32:
      return value_at<float>(at);
    case WeightFormat::kBf16:
      return bf16_to_fp32(value_at<std::uint16_t>(at));
    case WeightFormat::kFp16:
      return fp16_to_fp32(value_at<std::uint16_t>(at));
    case WeightFormat::kFp8:
      return matrix.channel_scales[row] * fp8_to_fp32(value_at<std::uint8_t>(at));
    case WeightFormat::kInt8Channel:
      return matrix.channel_scales[row] * static_cast<float>(value_at<std::int8_t>(at));
    case WeightFormat::kInt8Group:
      return fp16_to_fp32(value_at<std::uint16_t>(scale)) *
             static_cast<float>(value_at<std::int8_t>(at));
    case WeightFormat::kInt4Group:
      return std::fma(fp16_to_fp32(value_at<std::uint16_t>(scale)),
                      static_cast<float>(value_at<std::uint8_t>(at) >> (output / 8 * 4) & 15),
                      fp16_to_fp32(value_at<std::uint16_t>(scale + kPanel * 2)));
  }
  __trap();
}

__global__ void embed_kernel(const DeviceMatrixView table, const std::int32_t* tokens,
                             std::int32_t first_token, float* out, std::int64_t rows) {
  join_stream();
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
