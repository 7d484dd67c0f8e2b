#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/host_matrix.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_matrix.h"
#include "kernels/cpu/split.h"

namespace paceline::kernels::cpu {

/// Rows of a block for vector instructions.
inline constexpr int kRowBlock = 8;

/// Bytes of one group of all rows of a block: int8 [row_block, group], then fp32 scales
/// [row_block], then for each row one 32-bit `term` that a product adds: in_scale * sum(q) (fp32)
/// for kInt4Group, the int32 -128 * sum(q) that undoes the weights' offset for the int8 formats.
constexpr std::size_t block_group_bytes(int group, int row_block) {
  return static_cast<std::size_t>(row_block) * (static_cast<std::size_t>(group) + 8);
}

/// How activations lie before a product: plain rows for the float formats, which for bf16 are
/// rounded (to fp32, or in pairs where the instruction set takes them so), else blocks of quantized
/// rows, each with room for row_block: a tile finds its rows at constant distances from one
/// address.
struct QuantizedLayout {
  int group = 0;                // 0: rows are plain
  int row_block = kRowBlock;    // most rows of a block
  std::int64_t groups = 0;      // of a row
  std::size_t block_bytes = 0;  // from one block to the next: groups of block_group_bytes
  std::size_t row_bytes = 0;    // from one plain row to the next
};
QuantizedLayout quantized_layout(WeightFormat format, std::int64_t cols, int row_block);

/// The rows of a product are worked on in nearly equal blocks (of at most 8 rows, 9 are 4 and 5),
/// as a tile of few rows costs nearly what one of many does.
inline std::int64_t row_blocks(const QuantizedLayout& layout, std::int64_t rows) {
  return (rows + layout.row_block - 1) / layout.row_block;
}
inline IndexRange block_rows(const QuantizedLayout& layout, std::int64_t rows, std::int64_t block) {
  return part_of(rows, block, row_blocks(layout, rows));
}

/// The block that a row is in.
inline std::int64_t block_of_row(const QuantizedLayout& layout, std::int64_t rows,
                                 std::int64_t row) {
  return ((row + 1) * row_blocks(layout, rows) - 1) / rows;
}

/// Of all rows.
inline std::int64_t quantized_bytes(const QuantizedLayout& layout, std::int64_t rows) {
  return layout.group == 0
             ? rows * static_cast<std::int64_t>(layout.row_bytes)
             : row_blocks(layout, rows) * static_cast<std::int64_t>(layout.block_bytes);
}

/// Inputs that are a group where rows stay plain.
inline constexpr int kFloatGroup = 16;

/// Quantizes, or rounds to bf16, some groups of a row to their place among the blocks of all rows.
/// Who has the last row of a block does what is to be done with the rows that the block lacks.
struct QuantizeTask {
  WeightFormat format = WeightFormat::kInt4Group;
  QuantizedLayout layout;
  const float* in = nullptr;  // [cols], the row
  std::byte* out = nullptr;   // all blocks
  std::int64_t cols = 0;
  std::int64_t row_count = 0;  // M
  std::int64_t row = 0;
  IndexRange groups;
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
  int row_block = kRowBlock;  // of the layout that they work on
  void (*quantize)(const QuantizeTask& task) = nullptr;
  void (*multiply)(const ProductTask& task) = nullptr;
  /// Those that take over for the integer formats from `tiles_from` rows on; null: none.
  const LinearKernels* tiles = nullptr;
  std::int64_t tiles_from = 0;

  /// Those for a product of so many rows.
  const LinearKernels& of(WeightFormat format, std::int64_t rows) const {
    const bool tiled = tiles != nullptr && activation_group(format) != 0 && rows >= tiles_from;
    return tiled ? *tiles : *this;
  }
};
const LinearKernels& linear_kernels(Isa isa);

/// The tables behind it, one per source file. Run only what the machine supports.
namespace avx2 {
const LinearKernels& linear_kernels();
}
namespace avx512 {
const LinearKernels& linear_kernels();
}
namespace avx512vnni {
const LinearKernels& linear_kernels();
}
namespace avx512bf16 {
const LinearKernels& linear_kernels();
}
namespace amx {
const LinearKernels& linear_kernels();
}

}  // namespace paceline::kernels::cpu
