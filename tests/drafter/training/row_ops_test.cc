#include "drafter/training/row_ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/drafter/training/random_numbers.h"

namespace paceline::drafter {
namespace {

using ::testing::ElementsAre;

double exact_silu(double x) { return x / (1 + std::exp(-x)); }

/// From -20 to 20, by a step that hits no round numbers.
std::vector<float> arguments() {
  std::vector<float> values;
  for (double x = -20; x < 20; x += 0.0371) values.push_back(static_cast<float>(x));
  return values;
}

TEST(RowOps, SiluAndItsGradient) {
  kernels::ThreadPool pool(2);
  const std::vector<float> x = arguments();
  const std::int64_t n = std::ssize(x);
  std::vector<float> y(n), sum(n), d(n, 2.0f);
  silu(const_matrix(x, n), matrix(y, n), pool);
  add_silu(const_matrix(x, n), const_matrix(x, n), matrix(sum, n), pool);
  silu_gradient(const_matrix(x, n), const_matrix(d, n), matrix(d, n), pool);
  for (std::int64_t i = 0; i < n; ++i) {
    const double exact = exact_silu(x[i]);
    EXPECT_NEAR(y[i], exact, 4e-7 * std::abs(exact) + 1e-30) << x[i];
    EXPECT_NEAR(sum[i], x[i] + exact, 1e-6 * std::abs(x[i]));
    const double slope = (exact_silu(x[i] + 1e-5) - exact_silu(x[i] - 1e-5)) / 2e-5;
    EXPECT_NEAR(d[i], 2 * slope, 2e-6) << x[i];
  }
}

TEST(RowOps, SiluFarOut) {
  kernels::ThreadPool pool(1);
  std::vector<float> x{-1000, -90, 90, 1000};
  silu(matrix(x, 4), matrix(x, 4), pool);
  EXPECT_NEAR(x[0], 0, 1e-30);
  EXPECT_NEAR(x[1], 0, 1e-30);
  EXPECT_EQ(x[2], 90);
  EXPECT_EQ(x[3], 1000);
}

TEST(RowOps, BiasAndRowSum) {
  kernels::ThreadPool pool(2);
  std::vector<float> rows{1, 2, 3, 4, 5, 6}, bias{10, 20, 30}, sum{100, 0, 0};
  add_bias(bias, matrix(rows, 3), pool);
  EXPECT_THAT(rows, ElementsAre(11, 22, 33, 14, 25, 36));
  add_row_sum(matrix(rows, 3), sum, pool);
  EXPECT_THAT(sum, ElementsAre(125, 47, 69));
}

TEST(RowOps, GatherAndScatter) {
  kernels::ThreadPool pool(2);
  const std::vector<float> in{1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> index{2, 0, 2};
  std::vector<float> gathered(6), scattered{0, 0, 7, 7, 0, 0};
  gather_rows(const_matrix(in, 2), index, matrix(gathered, 2), pool);
  EXPECT_THAT(gathered, ElementsAre(5, 6, 1, 2, 5, 6));
  scatter_add_rows(const_matrix(in, 2), index, matrix(scattered, 2), pool);
  EXPECT_THAT(scattered, ElementsAre(3, 4, 7, 7, 1 + 5, 2 + 6));
}

TEST(RowOps, Softmax) {
  kernels::ThreadPool pool(1);
  // 1 : 2 : 5, whatever is added; entropy of the parts.
  std::vector<float> row{std::log(1.0f) + 50, std::log(2.0f) + 50, std::log(5.0f) + 50};
  std::vector<float> negative_entropy(1);
  softmax(matrix(row, 3), negative_entropy, pool);
  EXPECT_NEAR(row[0], 0.125, 1e-6);
  EXPECT_NEAR(row[1], 0.25, 1e-6);
  EXPECT_NEAR(row[2], 0.625, 1e-6);
  const double expected = 0.125 * std::log(0.125) + 0.25 * std::log(0.25) + 0.625 * std::log(0.625);
  EXPECT_NEAR(negative_entropy[0], expected, 1e-6);
}

// 37 columns: two whole groups of lanes and a rest.
TEST(RowOps, DistillationLossAndItsGradient) {
  constexpr std::int64_t kColumns = 37;
  kernels::ThreadPool pool(2);
  RandomNumbers random(3);
  std::vector<float> teacher = random.vector(2 * kColumns, 4);
  std::vector<float> negative_entropy(2);
  softmax(matrix(teacher, kColumns), negative_entropy, pool);
  const std::vector<float> logits = random.vector(3 * kColumns, 4);
  const std::vector<RowTarget> targets{{1, 36, 1.0f}, {0, 5, 0.5f}, {1, 0, 2.0f}};
  for (const float share : {0.0f, 0.3f, 1.0f}) {
    std::vector<float> d_logits = logits, loss(3);
    distillation_loss({const_matrix(teacher, kColumns), negative_entropy, share}, targets,
                      matrix(d_logits, kColumns), loss, pool);
    for (std::int64_t r = 0; r < 3; ++r) {
      double sum = 0, expected = 0;
      for (std::int64_t c = 0; c < kColumns; ++c) sum += std::exp(logits[r * kColumns + c]);
      for (std::int64_t c = 0; c < kColumns; ++c) {
        const double log_q = logits[r * kColumns + c] - std::log(sum);
        const double p = teacher[targets[r].teacher_row * kColumns + c];
        const double hot = c == targets[r].token ? 1 : 0;
        expected += share * p * (std::log(p) - log_q) - (1 - share) * hot * log_q;
        EXPECT_NEAR(d_logits[r * kColumns + c],
                    targets[r].weight * (std::exp(log_q) - share * p - (1 - share) * hot), 1e-6);
      }
      EXPECT_NEAR(loss[r], expected, 5e-6);
    }
  }
}

TEST(RowOps, TheTeacherItselfHasNoLoss) {
  kernels::ThreadPool pool(1);
  RandomNumbers random(4);
  const std::vector<float> logits = random.vector(100, 5);
  std::vector<float> teacher = logits, d_logits = logits, negative_entropy(1), loss(1);
  softmax(matrix(teacher, 100), negative_entropy, pool);
  distillation_loss({const_matrix(teacher, 100), negative_entropy, 1},
                    std::vector<RowTarget>{{0, 3, 1}}, matrix(d_logits, 100), loss, pool);
  EXPECT_NEAR(loss[0], 0, 1e-6);
  for (const float d : d_logits) EXPECT_NEAR(d, 0, 1e-7);
}

TEST(RowOps, RanksGoByLogitThenByIndex) {
  kernels::ThreadPool pool(1);
  const std::vector<float> logits{1, 3, 2, 3, /**/ 0, 0, 0, 0};
  std::vector<std::int32_t> rank(2);
  target_ranks(const_matrix(logits, 4), std::vector<RowTarget>{{0, 3, 1}, {0, 2, 1}}, rank, pool);
  EXPECT_THAT(rank, ElementsAre(1, 2));
  target_ranks(const_matrix(logits, 4), std::vector<RowTarget>{{0, 1, 1}, {0, 0, 1}}, rank, pool);
  EXPECT_THAT(rank, ElementsAre(0, 0));
}

}  // namespace
}  // namespace paceline::drafter
