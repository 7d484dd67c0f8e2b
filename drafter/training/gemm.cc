#include "drafter/training/gemm.h"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

// A tile of the result: large enough that packing its factors (once a tile) costs a few percent of
// its multiplications, small enough that a few threads find an even share.
constexpr std::int64_t kTileRows = 256;
constexpr std::int64_t kTileCols = 384;

std::int64_t tiles(std::int64_t length, std::int64_t tile) { return (length + tile - 1) / tile; }

/// Where element (row, col) of the factor begins.
const float* at(const Factor& factor, std::int64_t row, std::int64_t col) {
  const ConstMatrix& matrix = factor.matrix;
  return factor.transposed ? matrix.data + col * matrix.stride + row
                           : matrix.data + row * matrix.stride + col;
}

CBLAS_TRANSPOSE order(const Factor& factor) {
  return factor.transposed ? CblasTrans : CblasNoTrans;
}

void check_shapes(const Factor& a, const Factor& b, const Matrix& c) {
  check(a.rows() == c.rows && b.cols() == c.cols && a.cols() == b.rows(),
        "a product of [{}, {}] and [{}, {}] was to fill [{}, {}]", a.rows(), a.cols(), b.rows(),
        b.cols(), c.rows, c.cols);
  for (const std::int64_t length : {c.rows, c.cols, a.cols(), a.matrix.stride, b.matrix.stride}) {
    check(length >= 0 && length <= std::numeric_limits<blasint>::max(),
          "a product's dimension {} is out of bounds", length);
  }
}

}  // namespace

Gemm::Gemm(kernels::ThreadPool& pool) : pool_(pool) { openblas_set_num_threads(1); }

std::string Gemm::arithmetic() {
  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ... Zen MAX_THREADS=128"
  return fmt::format("{}, kernels for {}", openblas_get_config(), openblas_get_corename());
}

void Gemm::run(Factor a, Factor b, float beta, Matrix c) {
  check_shapes(a, b, c);
  if (c.rows == 0 || c.cols == 0) return;
  const std::int64_t inner = a.cols();
  const std::int64_t tile_cols = tiles(c.cols, kTileCols);
  const auto tile = [&](int task) {
    const std::int64_t row = task / tile_cols * kTileRows;
    const std::int64_t col = task % tile_cols * kTileCols;
    const auto rows = static_cast<blasint>(std::min(kTileRows, c.rows - row));
    const auto cols = static_cast<blasint>(std::min(kTileCols, c.cols - col));
    cblas_sgemm(CblasRowMajor, order(a), order(b), rows, cols, static_cast<blasint>(inner), 1.0f,
                at(a, row, 0), static_cast<blasint>(a.matrix.stride), at(b, 0, col),
                static_cast<blasint>(b.matrix.stride), beta, c.data + row * c.stride + col,
                static_cast<blasint>(c.stride));
  };
  pool_.run(static_cast<int>(tiles(c.rows, kTileRows) * tile_cols), tile);
}

}  // namespace paceline::drafter
