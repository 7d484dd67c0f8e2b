#include "drafter/training/gemm.h"

#include <fmt/format.h>
#include <dnnl.hpp>

#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/core/half.h"

// OpenMP's own API, which oneDNN takes its number of threads from; its header is not there for
// every compiler.
extern "C" void omp_set_num_threads(int threads);

namespace paceline::drafter {
namespace {

/// A part of the result that one thread computes: large enough that packing its factors (once a
/// tile) costs a few percent of its multiplications, small enough that a few threads find an even
/// share.
struct Tile {
  static constexpr std::int64_t kRows = 256;
  static constexpr std::int64_t kCols = 384;
  std::int64_t row, col, rows, cols;
};

std::int64_t ceil_div(std::int64_t length, std::int64_t part) { return (length + part - 1) / part; }

template <typename Function>
void for_tiles(const Matrix& c, kernels::ThreadPool& pool, Function f) {
  const std::int64_t across = ceil_div(c.cols, Tile::kCols);
  pool.run(static_cast<int>(ceil_div(c.rows, Tile::kRows) * across), [&](int task) {
    const std::int64_t row = task / across * Tile::kRows;
    const std::int64_t col = task % across * Tile::kCols;
    omp_set_num_threads(1);  // of what this thread calls
    f(Tile{row, col, std::min(Tile::kRows, c.rows - row), std::min(Tile::kCols, c.cols - col)});
  });
}

/// Elements from one row, and from one column, of a factor to the next.
struct Strides {
  explicit Strides(const Factor& factor, std::int64_t stride)
      : row(factor.transposed ? 1 : stride), col(factor.transposed ? stride : 1) {}
  std::int64_t row, col;
};

void check_shapes(const Factor& a, const Factor& b, const Matrix& c) {
  check(a.rows() == c.rows && b.cols() == c.cols && a.cols() == b.rows(),
        "a product of [{}, {}] and [{}, {}] was to fill [{}, {}]", a.rows(), a.cols(), b.rows(),
        b.cols(), c.rows, c.cols);
}

/// On each CPU by the widest instructions that it has.
[[gnu::target_clones("avx512f", "avx2", "default")]] void to_bf16(std::span<const float> in,
                                                                  std::uint16_t* out) {
  std::transform(in.begin(), in.end(), out, kernels::fp32_to_bf16);
}

void fill_with_zero(Matrix c) {
  for (std::int64_t r = 0; r < c.rows; ++r) std::fill_n(c.row(r).begin(), c.cols, 0.0f);
}

}  // namespace

struct Gemm::Library {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
};

/// A factor's elements in bf16, in the factor's order without gaps.
class Gemm::Bf16Factor {
 public:
  Bf16Factor(const Factor& factor, std::vector<std::uint16_t>& values, kernels::ThreadPool& pool)
      : strides_(factor, factor.matrix.cols) {
    const ConstMatrix& matrix = factor.matrix;
    if (std::ssize(values) < matrix.rows * matrix.cols) values.resize(matrix.rows * matrix.cols);
    values_ = values.data();
    constexpr std::int64_t kRows = 32;  // a task
    pool.run(static_cast<int>(ceil_div(matrix.rows, kRows)), [&](int task) {
      const std::int64_t end = std::min(matrix.rows, (task + 1) * kRows);
      for (std::int64_t r = task * kRows; r < end; ++r) {
        to_bf16(matrix.row(r), values_ + r * matrix.cols);
      }
    });
  }

  dnnl::memory::desc shape(std::int64_t rows, std::int64_t cols) const {
    return {{rows, cols}, dnnl::memory::data_type::bf16, {strides_.row, strides_.col}};
  }
  std::uint16_t* at(std::int64_t row, std::int64_t col) const {
    return values_ + row * strides_.row + col * strides_.col;
  }

 private:
  Strides strides_;
  std::uint16_t* values_ = nullptr;
};

Gemm::Gemm(kernels::ThreadPool& pool, GemmPrecision precision)
    : pool_(pool), precision_(precision), library_(std::make_unique<Library>()) {
  if (precision == GemmPrecision::kBf16 && !has_bf16()) {
    throw ConfigError("this CPU has no instructions for bf16 (AVX512-BF16): train in fp32");
  }
}

Gemm::~Gemm() = default;

bool Gemm::has_bf16() {
  // Each set's number has the bits of those that it includes.
  const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  return (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

std::string Gemm::arithmetic() {
  const dnnl_version_t& version = *dnnl_version();
  return fmt::format("oneDNN {}.{}.{}, instruction set {:#x}", version.major, version.minor,
                     version.patch, static_cast<unsigned>(dnnl_get_effective_cpu_isa()));
}

void Gemm::run(Factor a, Factor b, bool add, Matrix c) {
  check_shapes(a, b, c);
  if (a.cols() == 0) {
    if (!add) fill_with_zero(c);
    return;
  }
  if (precision_ == GemmPrecision::kBf16) return run_bf16(a, b, add, c);
  const Strides in_a(a, a.matrix.stride), in_b(b, b.matrix.stride);
  for_tiles(c, pool_, [&](const Tile& tile) {
    const dnnl_status_t status = dnnl_sgemm(
        a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', tile.rows, tile.cols, a.cols(), 1.0f,
        a.matrix.data + tile.row * in_a.row, a.matrix.stride, b.matrix.data + tile.col * in_b.col,
        b.matrix.stride, add ? 1.0f : 0.0f, c.data + tile.row * c.stride + tile.col, c.stride);
    check(status == dnnl_success, "oneDNN refuses a product of [{}, {}] and [{}, {}]: status {}",
          a.rows(), a.cols(), b.rows(), b.cols(), static_cast<int>(status));
  });
}

void Gemm::run_bf16(Factor a, Factor b, bool add, Matrix c) {
  const Bf16Factor left(a, a_values_, pool_), right(b, b_values_, pool_);
  const std::int64_t inner = a.cols();
  const dnnl::engine& engine = library_->engine;
  for_tiles(c, pool_, [&](const Tile& tile) {
    const dnnl::memory::desc shape_a = left.shape(tile.rows, inner);
    const dnnl::memory::desc shape_b = right.shape(inner, tile.cols);
    const dnnl::memory::desc shape_c({tile.rows, tile.cols}, dnnl::memory::data_type::f32,
                                     {c.stride, 1});
    dnnl::primitive_attr attributes;
    if (add) {
      dnnl::post_ops sum;
      sum.append_sum();
      attributes.set_post_ops(sum);
    }
    // Made once for each shape: the library keeps them.
    const dnnl::matmul product(dnnl::matmul::primitive_desc(
        dnnl::matmul::desc(shape_a, shape_b, shape_c), attributes, engine));
    dnnl::stream stream(engine);
    product.execute(
        stream,
        {{DNNL_ARG_SRC, dnnl::memory(shape_a, engine, left.at(tile.row, 0))},
         {DNNL_ARG_WEIGHTS, dnnl::memory(shape_b, engine, right.at(0, tile.col))},
         {DNNL_ARG_DST, dnnl::memory(shape_c, engine, c.data + tile.row * c.stride + tile.col)}});
    stream.wait();
  });
}

}  // namespace paceline::drafter
