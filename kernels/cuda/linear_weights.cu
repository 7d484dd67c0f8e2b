#include "kernels/cuda/linear_weights.h"

#include <cstdint>

#include "kernels/cuda/elements.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/step_inputs.h"

namespace paceline::kernels::cuda {
namespace {

/// What stands in a step's 4-byte words: elements of one output, but for int4 whose words hold
/// outputs i and i + 8, 4 inputs each.
template <WeightFormat kFormat>
struct Words {
  static constexpr bool kIsInt4 = kFormat == WeightFormat::kInt4Group;
  static constexpr StepLayout kLayout = step_layout(kFormat);
  static constexpr int kOutputs = kIsInt4 ? kPanel / 2 : kPanel;  // of a panel, with words
  static constexpr int kCount = kLayout.values / 4 / kOutputs;    // of a step and such an output
  static constexpr int kInputs = kLayout.inputs / kCount;         // of a word
  static constexpr int kBits = 32 / kInputs;                      // of an element
};

/// An element's bits; -0 behind a segment's last input, but 0 where activations are integers.
template <WeightFormat kFormat>
__device__ std::uint32_t element_bits(const std::byte* row, std::int64_t col) {
  constexpr bool kIsInteger = activation_group(kFormat) != 0;
  if (col < 0) return kIsInteger ? 0u : 1u << (Words<kFormat>::kBits - 1);
  if constexpr (Words<kFormat>::kIsInt4) {
    return static_cast<std::uint32_t>(row[col / 2]) >> (col % 2 * 4) & 15u;
  } else if constexpr (Words<kFormat>::kBits == 32) {
    return reinterpret_cast<const std::uint32_t*>(row)[col];
  } else if constexpr (Words<kFormat>::kBits == 16) {
    return reinterpret_cast<const std::uint16_t*>(row)[col];
  } else {
    return static_cast<std::uint32_t>(row[col]);
  }
}

__device__ inline void copy_half(std::byte* to, const std::byte* halves, std::int64_t index) {
  *reinterpret_cast<std::uint16_t*>(to) = reinterpret_cast<const std::uint16_t*>(halves)[index];
}

/// Of one output and step.
template <WeightFormat kFormat>
__device__ void copy_scales(const DeviceMatrixView& weight, const StoredRows& in, std::int64_t row,
                            std::int64_t output, std::int32_t step, std::byte* to,
                            float* channel_scales) {
  constexpr StepLayout kLayout = step_layout(kFormat);
  if constexpr (kFormat == WeightFormat::kInt8Channel) {
    if (step == 0) channel_scales[output] = reinterpret_cast<const float*>(in.scales)[row];
  } else if constexpr (activation_group(kFormat) != 0) {
    const std::int64_t group =
        row * (weight.cols / kWeightGroup) + col_of(weight, step, 0, kLayout.inputs) / kWeightGroup;
    std::byte* scale = to + kLayout.values + output % kPanel * 2;
    copy_half(scale, in.scales, group);
    if constexpr (kFormat == WeightFormat::kInt4Group) {
      copy_half(scale + kPanel * 2, in.minimums, group);
    }
  }
}

/// A thread takes a word. The first of an output and step brings the scales along.
template <WeightFormat kFormat>
__global__ void lay_out_kernel(const DeviceMatrixView weight, const StoredRows in,
                               std::int64_t row_bytes, std::int64_t first_row, std::int64_t rows,
                               std::byte* steps, float* channel_scales) {
  using Of = Words<kFormat>;
  const std::int64_t row_words = std::int64_t{weight.panel_steps} * Of::kCount;
  const std::int64_t panels = (rows + kPanel - 1) / kPanel;
  for (std::int64_t i = first_element(); i < panels * Of::kOutputs * row_words;
       i += element_step()) {
    const std::int64_t output = i / row_words;  // of those with words
    const std::int64_t row = output / Of::kOutputs * kPanel + output % Of::kOutputs;
    if (row >= rows) continue;
    const auto step = static_cast<std::int32_t>(i % row_words / Of::kCount);
    const int input = static_cast<int>(i % Of::kCount) * Of::kInputs;
    std::byte* to =
        steps + ((first_row + row) / kPanel * weight.panel_steps + step) * Of::kLayout.bytes;
    const bool has_other = Of::kIsInt4 && row + kPanel / 2 < rows;
    std::uint32_t word = 0;
    for (int j = 0; j < Of::kInputs; ++j) {
      const std::int64_t col = col_of(weight, step, input + j, Of::kLayout.inputs);
      std::uint32_t bits = element_bits<kFormat>(in.values + row * row_bytes, col);
      if (has_other) {
        bits |= element_bits<kFormat>(in.values + (row + kPanel / 2) * row_bytes, col) << 4;
      }
      word |= bits << (j * Of::kBits);
    }
    *reinterpret_cast<std::uint32_t*>(
        to + weight_offset(kFormat, static_cast<int>(row % kPanel), input)) = word;
    if (input > 0) continue;
    copy_scales<kFormat>(weight, in, row, first_row + row, step, to, channel_scales);
    if (has_other) {
      copy_scales<kFormat>(weight, in, row + kPanel / 2, first_row + row + kPanel / 2, step, to,
                           channel_scales);
    }
  }
}

}  // namespace

void lay_out_weights(const DeviceMatrixView& weight, const StoredRows& in, std::int64_t first_row,
                     std::int64_t rows, std::byte* steps, float* channel_scales,
                     cudaStream_t stream) {
  const auto bytes = static_cast<std::int64_t>(row_bytes(weight.format, weight.cols).values);
  const auto lay_out = [&]<WeightFormat kFormat>() {
    const std::int64_t panels = (rows + kPanel - 1) / kPanel;
    const std::int64_t words =
        panels * Words<kFormat>::kOutputs * weight.panel_steps * Words<kFormat>::kCount;
    launch("pack", shape_of_elements(words), stream, lay_out_kernel<kFormat>, weight, in, bytes,
           first_row, rows, steps, channel_scales);
  };
  switch (weight.format) {
    case WeightFormat::kFp32:
      return lay_out.operator()<WeightFormat::kFp32>();
    case WeightFormat::kBf16:
      return lay_out.operator()<WeightFormat::kBf16>();
    case WeightFormat::kFp16:
      return lay_out.operator()<WeightFormat::kFp16>();
    case WeightFormat::kInt8Channel:
      return lay_out.operator()<WeightFormat::kInt8Channel>();
    case WeightFormat::kInt8Group:
      return lay_out.operator()<WeightFormat::kInt8Group>();
    case WeightFormat::kInt4Group:
      return lay_out.operator()<WeightFormat::kInt4Group>();
  }
}

}  // namespace paceline::kernels::cuda
