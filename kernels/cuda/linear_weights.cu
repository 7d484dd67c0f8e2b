#include "kernels/cuda/linear_weights.h"

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/elements.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/step_inputs.h"

namespace paceline::kernels::cuda {
namespace {

/// What a thread writes to a step: elements of one output that stand together, but for int4 of
/// outputs i and i + 8.
template <WeightFormat kFormat>
struct Runs {
  static constexpr bool kIsInt4 = kFormat == WeightFormat::kInt4Group;
  using Word = std::conditional_t<kFormat == WeightFormat::kFp8, std::uint16_t, std::uint32_t>;
  static constexpr StepLayout kLayout = step_layout(kFormat);
  static constexpr int kBits = kLayout.values * 8 / kPanel / kLayout.inputs;  // of an element
  static constexpr int kOutputs = kIsInt4 ? kPanel / 2 : kPanel;  // of a panel, with runs
  static constexpr int kCount =                                   // of a step and such an output
      kLayout.values / static_cast<int>(sizeof(Word)) / kOutputs;
  static constexpr int kInputs = kLayout.inputs / kCount;      // of a run
  static constexpr int kStride = kIsInt4 ? 2 * kBits : kBits;  // from one input to the next
};

/// An element's bits; -0 behind a segment's last input, but 0 where activations are integers.
template <WeightFormat kFormat>
__device__ std::uint32_t element_bits(const std::byte* row, std::int64_t col) {
  constexpr int kBits = Runs<kFormat>::kBits;
  if (col < 0) return activation_group(kFormat) != 0 ? 0u : 1u << (kBits - 1);
  if constexpr (kBits == 4) {
    return static_cast<std::uint32_t>(row[col / 2]) >> (col % 2 * 4) & 15u;
  } else if constexpr (kBits == 32) {
    return reinterpret_cast<const std::uint32_t*>(row)[col];
  } else if constexpr (kBits == 16) {
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
  if constexpr (has_channel_scales(kFormat)) {
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

/// The first run of an output and step brings the scales along.
template <WeightFormat kFormat>
__global__ void lay_out_kernel(const DeviceMatrixView weight, const StoredRows in,
                               std::int64_t row_bytes, std::int64_t first_row, std::int64_t rows,
                               std::byte* steps, float* channel_scales) {
  using Of = Runs<kFormat>;
  const std::int64_t row_runs = std::int64_t{weight.panel_steps} * Of::kCount;
  const std::int64_t panels = (rows + kPanel - 1) / kPanel;
  for (std::int64_t i = first_element(); i < panels * Of::kOutputs * row_runs;
       i += element_step()) {
    const std::int64_t output = i / row_runs;  // of those with runs
    const std::int64_t row = output / Of::kOutputs * kPanel + output % Of::kOutputs;
    if (row >= rows) continue;
    const auto step = static_cast<std::int32_t>(i % row_runs / Of::kCount);
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
      word |= bits << (j * Of::kStride);
    }
    *reinterpret_cast<typename Of::Word*>(
        to + weight_offset(kFormat, static_cast<int>(row % kPanel), input)) =
        static_cast<typename Of::Word>(word);
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
    const std::int64_t runs =
        panels * Runs<kFormat>::kOutputs * weight.panel_steps * Runs<kFormat>::kCount;
    LaunchShape shape = shape_of_elements(runs);
    shape.after_all = true;  // the copy of `in`, too, which is on another stream
    launch("pack", shape, stream, lay_out_kernel<kFormat>, weight, in, bytes, first_row, rows,
           steps, channel_scales);
  };
  switch (weight.format) {
    case WeightFormat::kFp32:
      return lay_out.operator()<WeightFormat::kFp32>();
    case WeightFormat::kBf16:
      return lay_out.operator()<WeightFormat::kBf16>();
    case WeightFormat::kFp16:
      return lay_out.operator()<WeightFormat::kFp16>();
    case WeightFormat::kFp8:
      return lay_out.operator()<WeightFormat::kFp8>();
    case WeightFormat::kInt8Channel:
      return lay_out.operator()<WeightFormat::kInt8Channel>();
    case WeightFormat::kInt8Group:
      return lay_out.operator()<WeightFormat::kInt8Group>();
    case WeightFormat::kInt4Group:
      return lay_out.operator()<WeightFormat::kInt4Group>();
  }
}

}  // namespace paceline::kernels::cuda
