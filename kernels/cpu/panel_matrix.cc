#include "kernels/cpu/panel_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/core/error.h"
#include "kernels/core/float8.h"
#include "kernels/core/half.h"
#include "kernels/core/reduction.h"

namespace paceline::kernels::cpu {

namespace {

constexpr std::size_t kVectorBytes = 64;
constexpr unsigned char kInt8Offset = 0x80;  // flips the sign bit: adds 128

std::size_t element_bytes(WeightFormat format) {
  if (format == WeightFormat::kFp32) return 4;
  return format == WeightFormat::kFp8 ? 1 : 2;
}

// Where the element of fp32, bf16 or fp16 input k of output lane stands.
std::size_t element_offset(WeightFormat format, std::int64_t k, int lane) {
  const auto input = static_cast<std::size_t>(k);
  const auto output = static_cast<std::size_t>(lane);
  if (format == WeightFormat::kBf16) return (input / 2 * kPanel + output) * 4 + (1 - input % 2) * 2;
  return (input * kPanel + output) * element_bytes(format);
}

// Where the byte of int8 input k of output lane stands, or the 16 bits or nibble of the others.
std::size_t int8_offset(std::int64_t k, int lane) {
  const auto input = static_cast<std::size_t>(k);
  return input / kQuad * kVectorBytes + static_cast<std::size_t>(lane) * kQuad + input % kQuad;
}

std::size_t int4_offset(std::int64_t k, int lane, std::size_t group_bytes) {
  const auto input = static_cast<std::size_t>(k % kWeightGroup);
  return static_cast<std::size_t>(k / kWeightGroup) * group_bytes + input / 8 * kVectorBytes +
         static_cast<std::size_t>(lane) * kQuad + input % kQuad;
}

// Whether input k is in the high nibble of its byte.
bool int4_high(std::int64_t k) { return k / kQuad % 2 != 0; }

// Offset of the fp16 scale of a group; the int4 minimum stands 16 values behind it.
std::size_t scale_offset(WeightFormat format, const PanelLayout& layout, std::int64_t group,
                         int lane) {
  const auto g = static_cast<std::size_t>(group);
  const std::size_t at = static_cast<std::size_t>(lane) * 2;
  if (format == WeightFormat::kInt4Group) return g * layout.group_bytes + 4 * kVectorBytes + at;
  return layout.scale_offset + g * kPanel * 2 + at;
}

float load_fp16(const std::byte* from) {
  std::uint16_t half;
  std::memcpy(&half, from, sizeof(half));
  return fp16_to_fp32(half);
}

// Copies one row of a panel to its lane.
class RowPacker {
 public:
  RowPacker(const HostMatrix& matrix, const PanelLayout& layout)
      : matrix_(matrix), layout_(layout), bytes_(row_bytes(matrix.format, matrix.cols)) {}

  void pack(std::int64_t n, std::byte* panel) const {
    const auto row = static_cast<std::size_t>(n);
    const int lane = static_cast<int>(n % kPanel);
    const std::byte* values = matrix_.values.data() + row * bytes_.values;
    const std::byte* scales = matrix_.scales.data() + row * bytes_.scales;
    switch (matrix_.format) {
      case WeightFormat::kFp32:
      case WeightFormat::kBf16:
      case WeightFormat::kFp16:
        pack_floats(values, lane, panel);
        return;
      case WeightFormat::kFp8:
        pack_floats(values, lane, panel);
        std::memcpy(panel + layout_.scale_offset + static_cast<std::size_t>(lane) * 4, scales, 4);
        return;
      case WeightFormat::kInt8Channel:
        pack_int8(values, lane, panel);
        std::memcpy(panel + layout_.scale_offset + static_cast<std::size_t>(lane) * 4, scales, 4);
        return;
      case WeightFormat::kInt8Group:
        pack_int8(values, lane, panel);
        pack_halves(scales, lane, panel, 0);
        return;
      case WeightFormat::kInt4Group:
        pack_int4(values, lane, panel);
        pack_halves(scales, lane, panel, 0);
        pack_halves(matrix_.minimums.data() + row * bytes_.minimums, lane, panel, kPanel * 2);
        return;
    }
  }

 private:
  void pack_floats(const std::byte* values, int lane, std::byte* panel) const {
    const std::size_t size = element_bytes(matrix_.format);
    for (std::int64_t k = 0; k < matrix_.cols; ++k) {
      std::memcpy(panel + element_offset(matrix_.format, k, lane),
                  values + static_cast<std::size_t>(k) * size, size);
    }
  }
  void pack_int8(const std::byte* values, int lane, std::byte* panel) const {
    for (std::int64_t k = 0; k < matrix_.cols; ++k) {
      panel[int8_offset(k, lane)] = values[k] ^ std::byte{kInt8Offset};
    }
  }
  void pack_int4(const std::byte* values, int lane, std::byte* panel) const {
    for (std::int64_t k = 0; k < matrix_.cols; ++k) {
      const std::byte q = (k % 2 == 0 ? values[k / 2] : values[k / 2] >> 4) & std::byte{15};
      panel[int4_offset(k, lane, layout_.group_bytes)] |= int4_high(k) ? q << 4 : q;
    }
  }
  void pack_halves(const std::byte* from, int lane, std::byte* panel, std::size_t behind) const {
    for (std::int64_t group = 0; group < layout_.groups; ++group) {
      std::memcpy(panel + scale_offset(matrix_.format, layout_, group, lane) + behind,
                  from + group * 2, 2);
    }
  }

  const HostMatrix& matrix_;
  const PanelLayout& layout_;
  RowBytes bytes_;
};

}  // namespace

PanelLayout panel_layout(WeightFormat format, std::int64_t cols) {
  PanelLayout layout;
  const int group = activation_group(format);
  if (group == 0) {
    const bool in_pairs = format == WeightFormat::kBf16;
    layout.groups = in_pairs ? (cols + 1) / 2 : cols;
    layout.group_bytes = kPanel * (in_pairs ? 4 : element_bytes(format));
    layout.bytes = static_cast<std::size_t>(layout.groups) * layout.group_bytes;
    if (has_channel_scales(format)) {
      layout.scale_offset = layout.bytes;
      layout.bytes += kPanel * sizeof(float);
    }
  } else {
    layout.groups = (cols + group - 1) / group;
    const auto groups = static_cast<std::size_t>(layout.groups);
    const std::size_t halves = kPanel * sizeof(std::uint16_t);
    const auto vectors = static_cast<std::size_t>(group / kQuad);
    if (format == WeightFormat::kInt4Group) {
      layout.group_bytes = vectors / 2 * kVectorBytes + 2 * halves;
      layout.bytes = groups * layout.group_bytes;
    } else {
      layout.group_bytes = vectors * kVectorBytes;
      layout.scale_offset = groups * layout.group_bytes;
      layout.bytes =
          layout.scale_offset +
          (format == WeightFormat::kInt8Group ? groups * halves : kPanel * sizeof(float));
    }
  }
  layout.bytes = (layout.bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
  return layout;
}

PanelMatrix::PanelMatrix(const MatrixSource& matrix, const Reduction& reduction, HostArena& arena,
                         ThreadPool& pool)
    : format_(matrix.format()),
      rows_(matrix.rows()),
      cols_(matrix.cols()),
      reduction_(reduction),
      layout_(panel_layout(format_, cols_)) {
  check_reduction(reduction, format_, cols_);
  data_ = arena.allocate(static_cast<std::size_t>(panels()) * layout_.bytes);
  pool.run(static_cast<int>(panels()), [&](int panel) {
    std::byte* to = data_.as<std::byte>() + static_cast<std::size_t>(panel) * layout_.bytes;
    const std::int64_t begin = std::int64_t{panel} * kPanel;
    const std::int64_t end = std::min(begin + kPanel, rows_);
    const HostMatrix rows = read_rows(matrix, {begin, end});
    const RowPacker packer(rows, layout_);
    for (std::int64_t n = 0; n < rows.rows; ++n) packer.pack(n, to);
  });
}

void PanelMatrix::decode_row(std::int64_t n, float* out) const {
  const std::byte* data = panel(n / kPanel);
  const int lane = static_cast<int>(n % kPanel);
  const bool is_int4 = format_ == WeightFormat::kInt4Group;
  float scale = 0;
  float minimum = 0;
  if (has_channel_scales(format_)) {
    std::memcpy(&scale, data + layout_.scale_offset + static_cast<std::size_t>(lane) * 4, 4);
  }
  for (std::int64_t k = 0; k < cols_; ++k) {
    if (activation_group(format_) == 0) {
      const std::byte* from = data + element_offset(format_, k, lane);
      if (format_ == WeightFormat::kFp32) {
        std::memcpy(out + k, from, 4);
      } else if (format_ == WeightFormat::kFp8) {
        out[k] = scale * fp8_to_fp32(std::to_integer<std::uint8_t>(*from));
      } else {
        std::uint16_t half;
        std::memcpy(&half, from, 2);
        out[k] = format_ == WeightFormat::kBf16 ? bf16_to_fp32(half) : fp16_to_fp32(half);
      }
      out[k] += 0.0f;
      continue;
    }
    if (k % kWeightGroup == 0 && format_ != WeightFormat::kInt8Channel) {
      const std::byte* at = data + scale_offset(format_, layout_, k / kWeightGroup, lane);
      scale = load_fp16(at);
      if (is_int4) minimum = load_fp16(at + kPanel * 2);
    }
    if (is_int4) {
      const std::byte pair = data[int4_offset(k, lane, layout_.group_bytes)];
      const auto q = std::to_integer<int>(int4_high(k) ? pair >> 4 : pair & std::byte{15});
      out[k] = std::fma(scale, static_cast<float>(q), minimum) + 0.0f;
    } else {
      const int q = std::to_integer<int>(data[int8_offset(k, lane)]) - kInt8Offset;
      out[k] = scale * static_cast<float>(q) + 0.0f;
    }
  }
}

}  // namespace paceline::kernels::cpu
