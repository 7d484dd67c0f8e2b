#include "kernels/cuda/device_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/backend.h"
#include "tests/kernels/linear_cases.h"

// What stands in device memory, byte for byte, and how it comes there.

namespace paceline::kernels {
namespace {

using Bytes = std::vector<std::byte>;

/// Panels as linear_layout.h says, an element at a time.
class PanelBytes {
 public:
  PanelBytes(const HostMatrix& matrix, const Reduction& reduction)
      : matrix_(matrix),
        layout_(cuda::step_layout(matrix.format)),
        row_(row_bytes(matrix.format, matrix.cols)) {
    for (const Reduction::Segment& segment : reduction.segments) {
      for (std::int64_t at = 0; at < segment.cols.size(); at += layout_.inputs) {
        steps_.push_back({segment.cols.begin + at,
                          std::min(segment.cols.begin + at + layout_.inputs, segment.cols.end)});
      }
    }
  }

  Bytes all() const {
    const std::int64_t panels = (matrix_.rows + cuda::kPanel - 1) / cuda::kPanel;
    Bytes bytes(static_cast<std::size_t>(panels) * steps_.size() * layout_.bytes);
    for (std::int64_t row = 0; row < matrix_.rows; ++row) {
      for (std::size_t s = 0; s < steps_.size(); ++s) {
        const std::size_t step = static_cast<std::size_t>(row / cuda::kPanel) * steps_.size() + s;
        place(row, steps_[s], bytes.data() + step * layout_.bytes);
      }
    }
    return bytes;
  }

 private:
  void place(std::int64_t row, IndexRange cols, std::byte* step) const {
    const int output = static_cast<int>(row % cuda::kPanel);
    const std::byte* values = matrix_.values.data() + row * row_.values;
    const bool is_int4 = matrix_.format == WeightFormat::kInt4Group;
    for (int input = 0; input < layout_.inputs; ++input) {
      const std::int64_t col = cols.begin + input;
      std::byte* to = step + cuda::weight_offset(matrix_.format, output, input);
      if (is_int4) {
        const std::byte q = (values[col / 2] >> (col % 2 * 4)) & std::byte{15};
        *to |= output < 8 ? q : q << 4;
      } else if (col < cols.end) {
        std::memcpy(to, values + col * element_size(), element_size());
      } else if (activation_group(matrix_.format) == 0) {
        to[element_size() - 1] = std::byte{0x80};  // -0
      }
    }
    if (has_channel_scales(matrix_.format)) return;
    const std::size_t group = static_cast<std::size_t>(cols.begin / kWeightGroup) * 2;
    std::byte* scale = step + layout_.values + output * 2;
    if (row_.scales > 0) {
      std::memcpy(scale, matrix_.scales.data() + row * row_.scales + group, 2);
    }
    if (row_.minimums > 0) {
      std::memcpy(scale + cuda::kPanel * 2, matrix_.minimums.data() + row * row_.minimums + group,
                  2);
    }
  }
  std::size_t element_size() const { return row_.values / static_cast<std::size_t>(matrix_.cols); }

  const HostMatrix& matrix_;
  cuda::StepLayout layout_;
  RowBytes row_;
  std::vector<IndexRange> steps_;  // columns of each
};

Bytes download(Backend& device, const void* from, std::size_t bytes) {
  Bytes to(bytes);
  device.download(to.data(), from, bytes);
  return to;
}

Bytes steps_of(Backend& device, const cuda::DeviceMatrix& matrix) {
  const cuda::DeviceMatrixView& view = matrix.view();
  const auto steps = static_cast<std::size_t>(view.panels) * view.panel_steps;
  return download(device, view.steps, steps * cuda::step_layout(view.format).bytes);
}

void expect_panels(const HostMatrix& matrix, const Reduction& reduction, Backend& device,
                   cuda::Staging& staging) {
  const cuda::DeviceMatrix packed(matrix, reduction, device, staging);
  EXPECT_EQ(steps_of(device, packed), PanelBytes(matrix, reduction).all())
      << format_name(matrix.format) << " [" << matrix.rows << ", " << matrix.cols << "]";
  if (!has_channel_scales(matrix.format)) return;
  Bytes scales = matrix.scales;
  scales.resize(static_cast<std::size_t>(packed.view().panels) * cuda::kPanel * sizeof(float));
  EXPECT_EQ(download(device, packed.view().channel_scales, scales.size()), scales);
}

class CudaDeviceMatrix : public ::testing::TestWithParam<WeightFormat> {};

// Pieces of one panel, of a few, and all in one; buffers are used again from the third on.
TEST_P(CudaDeviceMatrix, HoldsPanelsAsTheLayoutSays) {
  const auto device = make_cuda_backend({});
  for (const std::size_t piece : {1u, 40000u, 1u << 20}) {
    cuda::Staging staging(2, piece);
    for (const std::int64_t rows : {0, 1, 7, 8, 9, 16, 83}) {
      const HostMatrix matrix = random_matrix(GetParam(), rows, 512, 1);
      for (const Reduction& reduction : reductions_of_512()) {
        expect_panels(matrix, reduction, *device, staging);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, CudaDeviceMatrix, ::testing::ValuesIn(kWeightFormats),
                         [](const auto& tested) { return std::string(format_name(tested.param)); });

TEST(CudaDeviceMatrixFloats, SegmentsMayEndAnywhere) {
  const auto device = make_cuda_backend({});
  cuda::Staging staging(1, 1);
  for (const WeightFormat format :
       {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kFp16, WeightFormat::kFp8}) {
    expect_panels(random_matrix(format, 40, 77, 2), cut({5, 36, 77}, {0, 1, 1}), *device, staging);
  }
  expect_panels(random_matrix(WeightFormat::kInt8Channel, 40, 77, 2), cut({64, 77}, {0, 1}),
                *device, staging);
}

// Rows of more than a megabyte, which threads share one by one.
TEST(CudaDeviceMatrixPieces, AreReadInPartsAndInOrder) {
  constexpr std::int64_t kRows = 35, kCols = 300000;
  const auto device = make_cuda_backend({});
  cuda::Staging staging(3, std::size_t{16} << 20);
  const auto value = [](std::int64_t row, std::int64_t col) {
    return static_cast<float>(row * 1000 + col % 1000);
  };
  std::array<std::atomic<int>, kRows> reads{};
  const MatrixSource source(
      WeightFormat::kFp32, kRows, kCols, [&](IndexRange rows, const RowSpace& to) {
        for (std::int64_t row = rows.begin; row < rows.end; ++row) {
          ++reads[row];
          auto* out = reinterpret_cast<float*>(to.values) + (row - rows.begin) * kCols;
          for (std::int64_t col = 0; col < kCols; ++col) out[col] = value(row, col);
        }
      });
  const cuda::DeviceMatrix packed(source, Reduction::whole(kCols), *device, staging);
  for (const std::atomic<int>& count : reads) EXPECT_EQ(count, 1);
  const Bytes steps = steps_of(*device, packed);
  for (const std::int64_t row : {0, 15, 16, 34}) {
    for (const std::int64_t col : {0, 7, 12345, 299999}) {
      float got = 0;
      const std::int64_t step = row / 16 * packed.view().panel_steps + col / 8;
      std::memcpy(&got,
                  steps.data() + step * 512 +
                      cuda::weight_offset(WeightFormat::kFp32, static_cast<int>(row % 16),
                                          static_cast<int>(col % 8)),
                  sizeof(got));
      EXPECT_EQ(got, value(row, col));
    }
  }
}

TEST(CudaDeviceMatrixPieces, ReadingMayFail) {
  const auto device = make_cuda_backend({});
  cuda::Staging staging(2, 1);
  const MatrixSource bad(WeightFormat::kFp32, 64, 4, [](IndexRange rows, const RowSpace& to) {
    if (rows.end > 40) throw ConfigError("row 40 cannot be read");
    std::memset(to.values, 0, static_cast<std::size_t>(rows.size()) * 16);
  });
  EXPECT_THROW(cuda::DeviceMatrix(bad, Reduction::whole(4), *device, staging), ConfigError);
  expect_panels(random_matrix(WeightFormat::kFp32, 64, 4, 3), Reduction::whole(4), *device,
                staging);
}

TEST(CudaDeviceMatrixSizes, KeepsWhatItWasMadeOf) {
  const auto device = make_cuda_backend({});
  cuda::Staging staging(1);
  const HostMatrix matrix = random_matrix(WeightFormat::kInt4Group, 4, 64, 4);
  const Reduction halves{{{{0, 32}, 0}, {{32, 64}, 0}}};
  const cuda::DeviceMatrix packed(matrix, halves, *device, staging);
  EXPECT_EQ(packed.format(), WeightFormat::kInt4Group);
  EXPECT_EQ(packed.rows(), 4);
  EXPECT_EQ(packed.cols(), 64);
  EXPECT_EQ(packed.reduction(), halves);
  // One panel of 16 outputs, two groups of 32 inputs: nibbles, scales, minimums.
  EXPECT_EQ(packed.bytes(), 2u * (16 * 16 + 16 * 2 + 16 * 2) + 2 * sizeof(cuda::DeviceSegment));
}

TEST(CudaDeviceMatrixSizes, RefusesOneThatLacksBytesOrIsCutWithinAGroup) {
  const auto device = make_cuda_backend({});
  cuda::Staging staging(1);
  HostMatrix matrix = random_matrix(WeightFormat::kInt8Group, 4, 64, 5);
  const Reduction cut{{{{0, 16}, 0}, {{16, 64}, 0}}};
  EXPECT_THROW(cuda::DeviceMatrix(matrix, cut, *device, staging), FatalError);
  matrix.scales.pop_back();
  EXPECT_THROW(cuda::DeviceMatrix(matrix, Reduction::whole(64), *device, staging), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
