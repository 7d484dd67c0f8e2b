#pragma once

#include <cstdint>
#include <span>
#include <string>

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

/// Dense fp32 products by oneDNN, shared out over a thread pool in tiles that depend on the shapes
/// alone: the same bits whatever the number of threads, on one type of CPU. Not for the token path,
/// whose bits no library may decide.
class Gemm {
 public:
  /// The pool must outlive it. oneDNN is told to use one thread a call: the pool's threads each
  /// make their own.
  explicit Gemm(kernels::ThreadPool& pool) : pool_(pool) {}

  /// c = a b. c overlaps neither. Throws FatalError if the shapes do not fit.
  void multiply(Factor a, Factor b, Matrix c) { run(a, b, 0.0f, c); }
  /// c += a b
  void multiply_add(Factor a, Factor b, Matrix c) { run(a, b, 1.0f, c); }

  /// What the bits of a product depend on besides its factors: oneDNN's version, and the
  /// instruction set that it makes its kernels for.
  static std::string arithmetic();

 private:
  void run(Factor a, Factor b, float beta, Matrix c);

  kernels::ThreadPool& pool_;
};

}  // namespace paceline::drafter
