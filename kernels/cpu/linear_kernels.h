#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/host_matrix.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_matrix.h"

namespace paceline::kernels::cpu {

/// Where the parts of a quantized row of activations lie. Per group the scale and one 32-bit
/// `term` that a product adds: in_scale * sum(q) (fp32) for kInt4Group, the int32 -128 * sum(q)
/// that undoes the weights' offset for the int8 formats.
struct QuantizedLayout {
  int group = 0;                 // 0: rows are plain fp32
  std::int64_t groups = 0;       // int8 [groups, group], from 0
  std::size_t scale_offset = 0;  // float [groups]
  std::size_t term_offset = 0;   // 32 bits [groups]
  std::size_t row_bytes = 0;     // from one row to the next
};
QuantizedLayout quantized_layout(WeightFormat format, std::int64_t cols);

/// Quantizes rows: in [rows, cols] to out.
struct QuantizeTask {
  WeightFormat format = WeightFormat::kInt4Group;
  QuantizedLayout layout;
  const float* in = nullptr;
  std::byte* out = nullptr;
  std::int64_t cols = 0;
  IndexRange rows;
};

/// The part of a product that lies in the given rows and panels.
struct ProductTask {
  const PanelMatrix* weight = nullptr;
  QuantizedLayout layout;
  const std::byte* in = nullptr;  // [row_count] rows of layout.row_bytes
  float* out = nullptr;           // [outputs, row_count, N]
  std::int64_t row_count = 0;     // M
  IndexRange rows;
  IndexRange panels;
};

/// The dense products of one instruction set.
struct LinearKernels {
  void (*quantize)(const QuantizeTask& task);
  void (*multiply)(const ProductTask& task);
};
const LinearKernels& linear_kernels(Isa isa);

/// The tables behind it, one per source file. Call only what the machine supports.
namespace avx2 {
const LinearKernels& linear_kernels();
}
namespace avx512 {
const LinearKernels& linear_kernels();
}
namespace avx512vnni {
const LinearKernels& linear_kernels();
}

}  // namespace paceline::kernels::cpu
