#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"

namespace paceline::drafter {

/// Row-major fp32 in someone else's memory; row r begins at data + r * stride.
struct ConstMatrix {
  const float* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  std::span<const float> row(std::int64_t r) const {
    return {data + r * stride, static_cast<std::size_t>(cols)};
  }
  /// Rows [first, first + count).
  ConstMatrix row_block(std::int64_t first, std::int64_t count) const {
    return {data + first * stride, count, cols, stride};
  }
};

struct Matrix {
  float* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  operator ConstMatrix() const { return {data, rows, cols, stride}; }  // NOLINT: a weaker view
  std::span<float> row(std::int64_t r) const {
    return {data + r * stride, static_cast<std::size_t>(cols)};
  }
  /// Rows [first, first + count).
  Matrix row_block(std::int64_t first, std::int64_t count) const {
    return {data + first * stride, count, cols, stride};
  }
};

/// A [rows, cols] matrix in a vector.
inline ConstMatrix as_matrix(const std::vector<float>& values, std::int64_t rows,
                             std::int64_t cols) {
  return {values.data(), rows, cols, cols};
}

/// A matrix as it stands in a product.
struct Factor {
  ConstMatrix matrix;
  bool transposed = false;

  Factor(ConstMatrix of) : matrix(of) {}  // NOLINT: products read like equations
  Factor(Matrix of) : matrix(of) {}       // NOLINT
  Factor(ConstMatrix of, bool transpose) : matrix(of), transposed(transpose) {}
  std::int64_t rows() const { return transposed ? matrix.cols : matrix.rows; }
  std::int64_t cols() const { return transposed ? matrix.rows : matrix.cols; }
};

inline Factor transpose(ConstMatrix matrix) { return {matrix, true}; }

/// What a product's factors are rounded to; sums and results are fp32.
enum class GemmPrecision { kFp32, kBf16 };

/// Dense products of fp32 matrices by oneDNN, shared out over a thread pool in tiles that depend on
/// the shapes alone: the same bits whatever the number of threads, on one type of CPU. Not for the
/// token path, whose bits no library may decide.
class Gemm {
 public:
  /// The pool must outlive it. oneDNN is told to use one thread a call: the pool's threads each
  /// make their own. Throws ConfigError if the CPU has no instructions for bf16 and that is asked
  /// for.
  explicit Gemm(kernels::ThreadPool& pool, GemmPrecision precision = GemmPrecision::kFp32);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  /// Whether this CPU multiplies bf16 by instructions of its own (AVX512-BF16, AMX).
  static bool has_bf16();

  /// c = a b. c overlaps neither. Throws FatalError if the shapes do not fit.
  void multiply(Factor a, Factor b, Matrix c) { run(a, b, false, c); }
  /// c += a b
  void multiply_add(Factor a, Factor b, Matrix c) { run(a, b, true, c); }

  /// What the bits of a product depend on besides its factors: oneDNN's version, and the
  /// instruction set that it makes its kernels for.
  static std::string arithmetic();

 private:
  struct Library;
  class Bf16Factor;

  void run(Factor a, Factor b, bool add, Matrix c);
  void run_bf16(Factor a, Factor b, bool add, Matrix c);

  kernels::ThreadPool& pool_;
  GemmPrecision precision_;
  std::unique_ptr<Library> library_;                // keeps dnnl.h out of this header
  std::vector<std::uint16_t> a_values_, b_values_;  // the factors, rounded
};

}  // namespace paceline::drafter
