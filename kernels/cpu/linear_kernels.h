#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/host_matrix.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_matrix.h"
#include "kernels/cpu/split.h"

namespace paceline::kernels::cpu {

/// The rows of a product are worked on in blocks of at most so many, nearly equal ones (9 rows are
/// 4 and 5), as a tile of few rows costs nearly what one of many does.
inline constexpr int kRowBlock = 8;
inline std::int64_t row_blocks(std::int64_t rows) { return (rows + kRowBlock - 1) / kRowBlock; }
inline IndexRange block_rows(std::int64_t rows, std::int64_t block) {
  return part_of(rows, block, row_blocks(rows));
}

/// Bytes of one group of all rows of a block: int8 [kRowBlock, group], then fp32 scales
/// [kRowBlock], then for each row one 32-bit `term` that a product adds: in_scale * sum(q) (fp32)
/// for kInt4Group, the int32 -128 * sum(q) that undoes the weights' offset for the int8 formats.
constexpr std::size_t block_group_bytes(int group) {
  return static_cast<std::size_t>(kRowBlock) * (static_cast<std::size_t>(group) + 8);
}

/// How activations lie before a product: plain rows for the float formats, else blocks of quantized
/// rows, each with room for kRowBlock: a tile finds its rows at constant distances from one
/// address.
struct QuantizedLayout {
  int group = 0;                // 0: rows are plain fp32
  std::int64_t groups = 0;      // of a row
  std::size_t block_bytes = 0;  // from one block to the next: groups * block_group_bytes(group)
  std::size_t row_bytes = 0;    // from one plain row to the next
};
QuantizedLayout quantized_layout(WeightFormat format, std::int64_t cols);

/// Quantizes the rows of some blocks: in [row_count, cols] to out.
struct QuantizeTask {
  WeightFormat format = WeightFormat::kInt4Group;
  QuantizedLayout layout;
  const float* in = nullptr;
  std::byte* out = nullptr;
  std::int64_t cols = 0;
  std::int64_t row_count = 0;  // M
  IndexRange blocks;
};

/// The part of a product that lies in the given blocks of rows and panels.
struct ProductTask {
  const PanelMatrix* weight = nullptr;
  QuantizedLayout layout;
  const std::byte* in = nullptr;  // row_count rows as the layout says
  float* out = nullptr;           // [outputs, row_count, N]
  std::int64_t row_count = 0;     // M
  IndexRange blocks;
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
