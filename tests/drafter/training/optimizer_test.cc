#include "drafter/training/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "kernels/core/error.h"
#include "tests/drafter/training/random_numbers.h"

namespace paceline::drafter {
namespace {

/// Two tensors: a matrix of four, which decays, and a bias of two, which does not.
HeadLayout small_layout() {
  HeadLayout layout;
  layout.tensors = {{"m", {2, 2}, 0, 4, true}, {"b", {2}, 4, 2, false}};
  layout.size = 6;
  return layout;
}

TEST(LearningRate, RisesThenFallsAlongHalfACosine) {
  LearningRate rate;
  rate.peak = 8;
  rate.final_share = 0.25f;
  rate.warmup_steps = 3;
  rate.steps = 11;
  EXPECT_FLOAT_EQ(rate.at(0), 2);
  EXPECT_FLOAT_EQ(rate.at(2), 6);
  EXPECT_FLOAT_EQ(rate.at(3), 8);
  EXPECT_FLOAT_EQ(rate.at(7), 5);  // halfway from 8 to 2
  EXPECT_FLOAT_EQ(rate.at(11), 2);
  EXPECT_FLOAT_EQ(rate.at(1000), 2);
  rate.warmup_steps = 20;  // never done warming up
  EXPECT_FLOAT_EQ(rate.at(10), 8.0f * 11 / 21);
}

TEST(AdamW, FollowsThePaper) {
  AdamWOptions options;
  options.weight_decay = 0.1f;
  options.max_gradient_norm = 0;
  kernels::ThreadPool pool(2);
  AdamW optimizer(options, small_layout(), pool);
  RandomNumbers random(1);
  std::vector<float> parameters = random.vector(6);
  std::vector<double> expected(parameters.begin(), parameters.end()), m(6), v(6);
  for (int t = 1; t <= 5; ++t) {
    const std::vector<float> gradients = random.vector(6);
    const float rate = 0.01f * static_cast<float>(t);
    optimizer.update(gradients, 0.5, rate, parameters);
    for (int i = 0; i < 6; ++i) {
      const double g = 0.5 * gradients[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.95 * v[i] + 0.05 * g * g;
      const double step = m[i] / (1 - std::pow(0.9, t)) /
                          (std::sqrt(v[i] / (1 - std::pow(0.95, t))) + options.epsilon);
      expected[i] -= rate * ((i < 4 ? 0.1 * expected[i] : 0) + step);
      EXPECT_NEAR(parameters[i], expected[i], 1e-6);
    }
  }
  EXPECT_EQ(optimizer.updates(), 5u);
}

TEST(AdamW, ClipsByTheNormOfAllTensors) {
  AdamWOptions options;
  options.max_gradient_norm = 1;
  options.epsilon = 1;  // so that the gradient's size counts
  kernels::ThreadPool pool(1);
  AdamW clipped(options, small_layout(), pool), whole(options, small_layout(), pool);
  std::vector<float> a(6), b(6);
  EXPECT_DOUBLE_EQ(clipped.update(std::vector<float>{3, 0, 0, 0, 4, 0}, 2, 0.1f, a), 10);
  EXPECT_NEAR(whole.update(std::vector<float>{0.3f, 0, 0, 0, 0.4f, 0}, 2, 0.1f, b), 1, 1e-7);
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(a[i], b[i], 1e-7);
  EXPECT_LT(a[0], -0.01f);
}

TEST(AdamW, LeavesEverythingWhenTheGradientIsNotFinite) {
  kernels::ThreadPool pool(1);
  AdamW optimizer({}, small_layout(), pool);
  std::vector<float> parameters(6, 1.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(
      std::isfinite(optimizer.update(std::vector<float>{0, nan, 0, 0, 0, 0}, 1, 0.1f, parameters)));
  EXPECT_EQ(parameters, std::vector<float>(6, 1.0f));
  EXPECT_EQ(optimizer.updates(), 0u);
}

// Several blocks, so that threads share them out.
TEST(AdamW, TheSameBitsWhateverTheThreadsAndAfterARestore) {
  HeadLayout layout;
  layout.tensors = {{"m", {100, 500}, 0, 50000, true}};
  layout.size = 50000;
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3, 4}) {
    kernels::ThreadPool pool(threads);
    RandomNumbers random(2);
    std::vector<float>& parameters = results.emplace_back(50000);
    std::stringstream saved;
    AdamW first({}, layout, pool), second({}, layout, pool);
    first.update(random.vector(50000), 1, 0.01f, parameters);
    ByteWriter writer(saved, "memory");
    first.save(writer);
    ByteReader reader(saved, "memory");
    second.restore(reader);
    reader.end();
    second.update(random.vector(50000), 1, 0.01f, parameters);
    EXPECT_EQ(second.updates(), 2u);
  }
  EXPECT_EQ(results[1], results[0]);
  EXPECT_EQ(results[2], results[0]);
}

TEST(AdamW, RefusesOptionsOutOfBounds) {
  kernels::ThreadPool pool(1);
  const auto refused = [&](auto change) {
    AdamWOptions options;
    change(options);
    EXPECT_THROW(AdamW(options, small_layout(), pool), ConfigError);
  };
  refused([](AdamWOptions& options) { options.beta1 = 1; });
  refused([](AdamWOptions& options) { options.beta2 = -0.1f; });
  refused([](AdamWOptions& options) { options.epsilon = 0; });
  refused([](AdamWOptions& options) { options.weight_decay = NAN; });
  refused([](AdamWOptions& options) { options.max_gradient_norm = -1; });
}

}  // namespace
}  // namespace paceline::drafter
