#include "kernels/cuda/backend.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "kernels/core/host_matrix.h"

namespace paceline::kernels {
namespace {

/// W x for the rows 1, 2, ... of x, where all of W is ones.
class Products {
 public:
  static constexpr std::int64_t kWidth = 32;
  static constexpr std::int64_t kMostRows = 512;

  Products() {
    HostMatrix ones{WeightFormat::kFp32, kWidth, kWidth, {}, {}, {}};
    const std::vector<float> values(kWidth * kWidth, 1.0f);
    ones.values.resize(values.size() * sizeof(float));
    std::memcpy(ones.values.data(), values.data(), ones.values.size());
    weight_ = backend_->pack(ones, Reduction::whole(kWidth));
    in_ = backend_->allocate(kMostRows * kWidth * sizeof(float));
    out_ = backend_->allocate(kMostRows * kWidth * sizeof(float));
    std::vector<float> rows(kMostRows * kWidth);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i / kWidth + 1);
    backend_->upload(in_.as<void>(), rows.data(), rows.size() * sizeof(float));
  }

  void multiply(std::int64_t rows) {
    const std::array<std::int64_t, 1> key = {rows};
    backend_->repeat(key, [&] {
      backend_->linear(
          {.weight = weight_.get(), .in = in_.as<float>(), .out = out_.as<float>(), .rows = rows});
    });
  }
  /// The first element of the last of some rows, which is not there any more after this.
  float take_last(std::int64_t rows) {
    float value = 0;
    float* const last = out_.as<float>() + (rows - 1) * kWidth;
    backend_->download(&value, last, sizeof(value));
    const float gone = 0;
    backend_->upload(last, &gone, sizeof(gone));
    return value;
  }
  RepeatCounts counts() const { return backend_->repeat_counts(); }
  Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<Backend> backend_ = make_cuda_backend({});
  std::unique_ptr<PackedMatrix> weight_;
  Buffer in_, out_;
};

// An op with more rows needs more of it. Its old place is still there for what was recorded.
TEST(CudaBackend, ScratchMemoryGrowsWithoutForgetting) {
  Products products;
  for (int i = 0; i < 3; ++i) products.multiply(4);
  const RepeatCounts before = products.counts();
  EXPECT_EQ(before.recorded, 1);
  EXPECT_EQ(before.repeated, 1);
  for (const std::int64_t rows : {64, 512}) {
    products.multiply(rows);
    EXPECT_EQ(products.take_last(rows), static_cast<float>(Products::kWidth * rows));
  }
  products.take_last(4);
  products.multiply(4);
  EXPECT_EQ(products.take_last(4), Products::kWidth * 4.0f);
  EXPECT_EQ(products.counts().repeated, 2);
  EXPECT_EQ(products.counts().forgotten, before.forgotten);
}

TEST(CudaBackend, OtherMemoryIsForgottenWhenSomeIsAllocated) {
  Products products;
  for (int i = 0; i < 3; ++i) products.multiply(4);
  const RepeatCounts before = products.counts();
  const Buffer more = products.backend().allocate(1);
  EXPECT_EQ(products.counts().forgotten, before.forgotten + 1);
  products.take_last(4);
  for (int i = 0; i < 2; ++i) products.multiply(4);
  EXPECT_EQ(products.take_last(4), Products::kWidth * 4.0f);
  EXPECT_EQ(products.counts().recorded, 2);
  EXPECT_EQ(products.counts().repeated, before.repeated);
}

}  // namespace
}  // namespace paceline::kernels
