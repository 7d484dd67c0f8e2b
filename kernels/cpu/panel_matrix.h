#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/api.h"
#include "kernels/core/host_arena.h"
#include "kernels/core/matrix_source.h"
#include "kernels/core/thread_pool.h"
#include "kernels/params.h"

namespace paceline::kernels::cpu {

/// Outputs of a panel: the lanes of one AVX-512 vector of fp32, or of two of AVX2.
inline constexpr int kPanel = 16;

/// Inputs that one 32-bit lane of an integer dot product instruction takes.
inline constexpr int kQuad = 4;

/// How the bytes of one panel of 16 outputs lie, by format. A product reads a panel once, front to
/// back. Outputs beyond the last are zero.
///
/// fp32, fp16         for each input k, 16 elements.
/// kFp8               the same; then 16 fp32 scales.
/// bf16               for each pair of inputs 2i, 2i + 1 one vector of 16 words of 32 bits; word j
///                    holds, of output j, the first input in its upper half, the second in the
///                    lower: the order in which a bf16 instruction adds them. Without a second, +0.
/// kInt4Group         for each group of 32 inputs 320 bytes: 4 vectors of 64 bytes; byte 4j + i of
///                    vector v holds, of output j, input 8v + i in its low nibble and input
///                    8v + 4 + i in the high; then 16 fp16 scales, then 16 fp16 minimums.
/// kInt8Group         for each group 8 vectors of 64 bytes; byte 4j + i of vector v is, of output
///                    j, input 4v + i, plus 128 so that it is unsigned; after all groups, for each
///                    16 fp16 scales.
/// kInt8Channel       vectors as in kInt8Group, 16 for each group of 64 inputs (the last filled up
///                    with anything: its activations are zero); then 16 fp32 scales.
struct PanelLayout {
  std::int64_t groups = 0;       // activation groups; inputs for the float formats (bf16: pairs)
  std::size_t group_bytes = 0;   // from one group to the next
  std::size_t scale_offset = 0;  // int8, fp8: where the panel's scales begin
  std::size_t bytes = 0;         // from one panel to the next, a multiple of 64
};
PanelLayout panel_layout(WeightFormat format, std::int64_t cols);

/// A matrix cut into panels of 16 outputs. The layout is the same for every instruction set.
class PanelMatrix final : public PackedMatrix {
 public:
  /// Its memory comes from the arena; the pool's threads share the work, a panel's rows at a time.
  PanelMatrix(const MatrixSource& matrix, const Reduction& reduction, HostArena& arena,
              ThreadPool& pool);

  WeightFormat format() const override { return format_; }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  const Reduction& reduction() const override { return reduction_; }
  std::size_t bytes() const override { return data_.bytes(); }

  const PanelLayout& layout() const { return layout_; }
  std::int64_t panels() const { return (rows_ + kPanel - 1) / kPanel; }
  const std::byte* panel(std::int64_t index) const {
    return data_.as<const std::byte>() + static_cast<std::size_t>(index) * layout_.bytes;
  }

  /// Writes row n, widened to fp32, plus +0, to out[0..cols).
  void decode_row(std::int64_t n, float* out) const;

 private:
  WeightFormat format_;
  std::int64_t rows_;
  std::int64_t cols_;
  Reduction reduction_;
  PanelLayout layout_;
  Buffer data_;
};

}  // namespace paceline::kernels::cpu
