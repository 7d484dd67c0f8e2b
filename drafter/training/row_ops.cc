#include "drafter/training/row_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

// Sixteen numbers at a time (GCC's vector extension). What works on a whole row is compiled once
// for each instruction set below and chosen at start; the lanes, and with them each sum's order,
// are the same on all.
constexpr std::int64_t kLanes = 16;
using Lanes [[gnu::vector_size(64)]] = float;
using IntLanes [[gnu::vector_size(64)]] = std::int32_t;

// Inlined, so that each clone has its own: vectors are never passed between instruction sets, which
// is what the compiler warns of.
#pragma GCC diagnostic ignored "-Wpsabi"
#define PACELINE_INLINE [[gnu::always_inline]] inline
#define PACELINE_CLONES [[gnu::target_clones("avx512f", "avx2", "default")]]

PACELINE_INLINE Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}
PACELINE_INLINE void store(Lanes lanes, float* to) { std::memcpy(to, &lanes, sizeof lanes); }
PACELINE_INLINE Lanes all(float value) { return Lanes{} + value; }

/// e^x within 2 ulp for x in [-87, 88]; a smaller x counts as -87, a larger as 88.
PACELINE_INLINE Lanes exponential(Lanes x) {
  x = x > all(88.0f) ? all(88.0f) : x;
  x = x < all(-87.0f) ? all(-87.0f) : x;
  // Adding 1.5 * 2^23 rounds to an integer n, which the low bits then hold: x = n ln 2 + r.
  const Lanes shift = all(12582912.0f);
  const Lanes shifted = x * all(1.44269504f) + shift;
  const Lanes n = shifted - shift;
  const Lanes r = (x - n * all(0.693359375f)) - n * all(-2.12194440e-4f);
  // The Taylor series up to r^7, whose remainder is below 6e-9 for |r| <= ln(2) / 2.
  Lanes p = all(1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = p * r + all(c);
  }
  // 2^n by its exponent bits.
  const IntLanes exponent =
      reinterpret_cast<IntLanes>(shifted) - reinterpret_cast<IntLanes>(shift) + 127;
  return p * reinterpret_cast<Lanes>(exponent << 23);
}

PACELINE_INLINE float sum_of(Lanes lanes) {
  float sums[kLanes];
  store(lanes, sums);
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

/// out := f(in, out), lanes by lanes, the last ones padded with zeros.
template <typename Function>
PACELINE_INLINE void for_lanes(std::span<const float> in, std::span<float> out, Function f) {
  const std::int64_t n = std::ssize(out);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(f(load(&in[i]), load(&out[i])), &out[i]);
  if (i == n) return;
  float tail_in[kLanes] = {}, tail_out[kLanes] = {};
  std::copy(in.begin() + i, in.end(), tail_in);
  std::copy(out.begin() + i, out.end(), tail_out);
  store(f(load(tail_in), load(tail_out)), tail_out);
  std::copy_n(tail_out, n - i, out.begin() + i);
}
#define PACELINE_LANES(...) [=](__VA_ARGS__) __attribute__((always_inline))

PACELINE_INLINE Lanes sigmoid(Lanes x) { return all(1.0f) / (all(1.0f) + exponential(-x)); }
/// silu'(x) = s (1 + x (1 - s)), s = sigmoid(x).
PACELINE_INLINE Lanes silu_slope(Lanes x) {
  const Lanes s = sigmoid(x);
  return s * (all(1.0f) + x * (all(1.0f) - s));
}

PACELINE_CLONES void silu_row(std::span<const float> in, std::span<float> out) {
  for_lanes(
      in, out, PACELINE_LANES(Lanes x, Lanes) { return x * sigmoid(x); });
}

PACELINE_CLONES void add_row(std::span<const float> in, std::span<float> out) {
  for_lanes(
      in, out, PACELINE_LANES(Lanes x, Lanes y) { return y + x; });
}

PACELINE_CLONES void scale_row(float factor, std::span<float> row) {
  const Lanes by = all(factor);
  for_lanes(
      row, row, PACELINE_LANES(Lanes x, Lanes) { return x * by; });
}

/// d := d silu'(in)
PACELINE_CLONES void silu_gradient_row(std::span<const float> in, std::span<float> d) {
  for_lanes(
      in, d, PACELINE_LANES(Lanes x, Lanes y) { return y * silu_slope(x); });
}

/// row := row to_q - p to_p
PACELINE_CLONES void distillation_gradient_row(std::span<const float> p, float to_p, float to_q,
                                               std::span<float> row) {
  const Lanes by_p = all(to_p), by_q = all(to_q);
  for_lanes(
      p, row, PACELINE_LANES(Lanes x, Lanes e) { return e * by_q - x * by_p; });
}

constexpr std::int64_t kRowsOfATask = 8;
constexpr std::int64_t kColumnsOfATask = 64;

template <typename Function>
void for_blocks(std::int64_t length, std::int64_t block, kernels::ThreadPool& pool, Function f) {
  const auto task = [&](int index) {
    const std::int64_t begin = index * block;
    f(begin, std::min(length, begin + block));
  };
  pool.run(static_cast<int>((length + block - 1) / block), task);
}

template <typename Function>
void for_rows(std::int64_t rows, kernels::ThreadPool& pool, Function f) {
  for_blocks(rows, kRowsOfATask, pool, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) f(r);
  });
}

void check_same_shape(ConstMatrix a, ConstMatrix b) {
  check(a.rows == b.rows && a.cols == b.cols, "[{}, {}] and [{}, {}] differ in shape", a.rows,
        a.cols, b.rows, b.cols);
}

struct Exponentials {
  double sum = 0;
  double weighted = 0;  ///< sum of (row[i] - shift) e^(row[i] - shift)
};

/// row[i] := e^(row[i] - shift)
PACELINE_CLONES Exponentials exponentials(std::span<float> row, float shift) {
  const std::int64_t n = std::ssize(row);
  Lanes sums[4] = {}, weighted[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int part = 0; part < 4; ++part) {
      const Lanes x = load(&row[i + part * kLanes]) - all(shift);
      const Lanes e = exponential(x);
      store(e, &row[i + part * kLanes]);
      sums[part] += e;
      weighted[part] += x * e;
    }
  }
  Exponentials result;
  for (; i < n; ++i) {
    const float x = row[i] - shift;
    row[i] = exponential(all(x))[0];
    result.sum += row[i];
    result.weighted += static_cast<double>(x) * row[i];
  }
  result.sum += sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
  result.weighted += sum_of((weighted[0] + weighted[1]) + (weighted[2] + weighted[3]));
  return result;
}

PACELINE_CLONES float largest(std::span<const float> row) {
  const std::int64_t n = std::ssize(row);
  float result = row[0];
  std::int64_t i = 0;
  if (n >= kLanes) {
    Lanes lanes = load(&row[0]);
    for (; i + kLanes <= n; i += kLanes) {
      const Lanes next = load(&row[i]);
      lanes = next > lanes ? next : lanes;
    }
    for (int lane = 0; lane < kLanes; ++lane) result = std::max(result, lanes[lane]);
  }
  for (; i < n; ++i) result = std::max(result, row[i]);
  return result;
}

PACELINE_CLONES double dot(std::span<const float> a, std::span<const float> b) {
  const std::int64_t n = std::ssize(a);
  Lanes sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int part = 0; part < 4; ++part) {
      sums[part] += load(&a[i + part * kLanes]) * load(&b[i + part * kLanes]);
    }
  }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum + sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

void silu(ConstMatrix in, Matrix out, kernels::ThreadPool& pool) {
  check_same_shape(in, out);
  for_rows(in.rows, pool, [&](std::int64_t r) { silu_row(in.row(r), out.row(r)); });
}

void add_silu(ConstMatrix x, ConstMatrix in, Matrix out, kernels::ThreadPool& pool) {
  check_same_shape(x, out);
  check_same_shape(in, out);
  for_rows(in.rows, pool, [&](std::int64_t r) {
    silu_row(in.row(r), out.row(r));
    add_row(x.row(r), out.row(r));
  });
}

void silu_gradient(ConstMatrix in, ConstMatrix d_out, Matrix d_in, kernels::ThreadPool& pool) {
  check_same_shape(in, d_out);
  check_same_shape(in, d_in);
  for_rows(in.rows, pool, [&](std::int64_t r) {
    if (d_in.data != d_out.data) std::ranges::copy(d_out.row(r), d_in.row(r).begin());
    silu_gradient_row(in.row(r), d_in.row(r));
  });
}

void add_bias(std::span<const float> bias, Matrix out, kernels::ThreadPool& pool) {
  check(std::ssize(bias) == out.cols, "a bias of {} for {} columns", bias.size(), out.cols);
  for_rows(out.rows, pool, [&](std::int64_t r) { add_row(bias, out.row(r)); });
}

void add_row_sum(ConstMatrix rows, std::span<float> sum, kernels::ThreadPool& pool) {
  check(std::ssize(sum) == rows.cols, "a sum of {} for {} columns", sum.size(), rows.cols);
  for_blocks(rows.cols, kColumnsOfATask, pool, [&](std::int64_t begin, std::int64_t end) {
    const std::span<float> part = sum.subspan(begin, end - begin);
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      add_row(rows.row(r).subspan(begin, end - begin), part);
    }
  });
}

void gather_rows(ConstMatrix in, std::span<const std::int32_t> index, Matrix out,
                 kernels::ThreadPool& pool) {
  check(in.cols == out.cols && std::ssize(index) == out.rows,
        "{} rows of {} gathered into [{}, {}]", index.size(), in.cols, out.rows, out.cols);
  for_rows(out.rows, pool, [&](std::int64_t r) {
    std::copy_n(in.row(index[r]).begin(), out.cols, out.row(r).begin());
  });
}

void scatter_add_rows(ConstMatrix in, std::span<const std::int32_t> index, Matrix out,
                      kernels::ThreadPool& pool) {
  check(in.cols == out.cols && std::ssize(index) == in.rows,
        "{} rows of {} scattered from [{}, {}]", index.size(), out.cols, in.rows, in.cols);
  for_blocks(in.cols, kColumnsOfATask, pool, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = 0; r < in.rows; ++r) {
      add_row(in.row(r).subspan(begin, end - begin), out.row(index[r]).subspan(begin, end - begin));
    }
  });
}

void softmax(Matrix logits, std::span<float> negative_entropy, kernels::ThreadPool& pool) {
  for_rows(logits.rows, pool, [&](std::int64_t r) {
    const std::span<float> row = logits.row(r);
    const Exponentials e = exponentials(row, largest(row));
    scale_row(static_cast<float>(1 / e.sum), row);
    negative_entropy[r] = static_cast<float>(e.weighted / e.sum - std::log(e.sum));
  });
}

void distillation_loss(const TeacherDistributions& teacher, std::span<const RowTarget> targets,
                       Matrix logits, std::span<float> loss, kernels::ThreadPool& pool) {
  const float share = teacher.share;
  for_rows(logits.rows, pool, [&](std::int64_t r) {
    const RowTarget& target = targets[r];
    const std::span<float> row = logits.row(r);
    const std::span<const float> p = teacher.probabilities.row(target.teacher_row);
    const float top = largest(row);
    const double expected = dot(p, row) - top;  // the teacher's mean of the logits
    const double token_logit = row[target.token] - top;
    const double sum = exponentials(row, top).sum;
    const double log_sum = std::log(sum);
    const double divergence = teacher.negative_entropy[target.teacher_row] - expected + log_sum;
    loss[r] = static_cast<float>(share * divergence + (1 - share) * (log_sum - token_logit));
    // d/dz = q - share p - (1 - share) onehot(token)
    distillation_gradient_row(p, target.weight * share, static_cast<float>(target.weight / sum),
                              row);
    row[target.token] -= target.weight * (1 - share);
  });
}

void target_ranks(ConstMatrix logits, std::span<const RowTarget> targets,
                  std::span<std::int32_t> rank, kernels::ThreadPool& pool) {
  for_rows(logits.rows, pool, [&](std::int64_t r) {
    const std::span<const float> row = logits.row(r);
    const std::int32_t token = targets[r].token;
    std::int32_t before = 0;
    for (std::int64_t c = 0; c < logits.cols; ++c) {
      before += row[c] > row[token] || (row[c] == row[token] && c < token) ? 1 : 0;
    }
    rank[r] = before;
  });
}

}  // namespace paceline::drafter
