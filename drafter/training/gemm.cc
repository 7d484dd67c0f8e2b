#include "drafter/training/gemm.h"

#include <dnnl.h>
#include <fmt/format.h>

#include <algorithm>

#include "kernels/core/error.h"

// OpenMP's own API, which oneDNN takes its number of threads from; its header is not there for
// every compiler.
extern "C" void omp_set_num_threads(int threads);

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

char order(const Factor& factor) { return factor.transposed ? 'T' : 'N'; }

void check_shapes(const Factor& a, const Factor& b, const Matrix& c) {
  check(a.rows() == c.rows && b.cols() == c.cols && a.cols() == b.rows(),
        "a product of [{}, {}] and [{}, {}] was to fill [{}, {}]", a.rows(), a.cols(), b.rows(),
        b.cols(), c.rows, c.cols);
}

}  // namespace

std::string Gemm::arithmetic() {
  const dnnl_version_t& version = *dnnl_version();
  return fmt::format("oneDNN {}.{}.{}, instruction set {:#x}", version.major, version.minor,
                     version.patch, static_cast<unsigned>(dnnl_get_effective_cpu_isa()));
}

void Gemm::run(Factor a, Factor b, float beta, Matrix c) {
  check_shapes(a, b, c);
  const std::int64_t inner = a.cols();
  if (inner == 0 && beta == 0) {
    for (std::int64_t r = 0; r < c.rows; ++r) std::fill_n(c.row(r).begin(), c.cols, 0.0f);
  }
  if (c.rows == 0 || c.cols == 0 || inner == 0) return;
  const std::int64_t tile_cols = tiles(c.cols, kTileCols);
  const auto tile = [&](int task) {
    const std::int64_t row = task / tile_cols * kTileRows;
    const std::int64_t col = task % tile_cols * kTileCols;
    const std::int64_t rows = std::min(kTileRows, c.rows - row);
    const std::int64_t cols = std::min(kTileCols, c.cols - col);
    omp_set_num_threads(1);  // of what this thread calls
    const dnnl_status_t status =
        dnnl_sgemm(order(a), order(b), rows, cols, inner, 1.0f, at(a, row, 0), a.matrix.stride,
                   at(b, 0, col), b.matrix.stride, beta, c.data + row * c.stride + col, c.stride);
    check(status == dnnl_success, "oneDNN refuses a product of [{}, {}] and [{}, {}]: status {}",
          rows, inner, inner, cols, static_cast<int>(status));
  };
  pool_.run(static_cast<int>(tiles(c.rows, kTileRows) * tile_cols), tile);
}

}  // namespace paceline::drafter
