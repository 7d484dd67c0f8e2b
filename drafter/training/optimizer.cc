#include "drafter/training/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

// Elements that one task updates; sums are made block by block, so they do not depend on threads.
constexpr std::int64_t kBlock = 1 << 14;

int blocks_of(std::int64_t size) { return static_cast<int>((size + kBlock - 1) / kBlock); }

AdamWOptions checked(const AdamWOptions& options) {
  const auto within = [](const char* name, float value, float least, float below) {
    if (!(value >= least && value < below)) {
      throw ConfigError("{} is {}, expected a number from {} and below {}", name, value, least,
                        below);
    }
  };
  within("beta1", options.beta1, 0, 1);
  within("beta2", options.beta2, 0, 1);
  within("weight_decay", options.weight_decay, 0, 1e6f);
  within("max_gradient_norm", options.max_gradient_norm, 0, 1e30f);
  if (!(options.epsilon > 0)) throw ConfigError("epsilon is {}, expected > 0", options.epsilon);
  return options;
}

double sum_of_squares(std::span<const float> values) {
  // Eight chains that need not wait for each other, in a fixed order.
  double sums[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    for (int chain = 0; chain < 8; ++chain) {
      const double value = values[i + chain];
      sums[chain] += value * value;
    }
  }
  for (; i < values.size(); ++i) sums[0] += static_cast<double>(values[i]) * values[i];
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

/// What is the same for all elements of an update.
struct Update {
  float scale;  // of the gradient
  float beta1, beta2;
  float step;             // learning rate / (1 - beta1^t)
  float root_correction;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

void update_block(const Update& u, float decay, std::span<const float> gradient,
                  std::span<float> mean, std::span<float> variance, std::span<float> parameters) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const float g = gradient[i] * u.scale;
    mean[i] = u.beta1 * mean[i] + (1.0f - u.beta1) * g;
    variance[i] = u.beta2 * variance[i] + (1.0f - u.beta2) * (g * g);
    const float root = std::sqrt(variance[i]) * u.root_correction + u.epsilon;
    parameters[i] = parameters[i] * decay - u.step * (mean[i] / root);
  }
}

}  // namespace

float LearningRate::at(std::uint64_t step) const {
  if (step < warmup_steps) return peak * static_cast<float>(step + 1) / (warmup_steps + 1);
  const double length = steps > warmup_steps ? static_cast<double>(steps - warmup_steps) : 1.0;
  const double progress = std::min(1.0, static_cast<double>(step - warmup_steps) / length);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return static_cast<float>(peak * (final_share + (1 - final_share) * cosine));
}

AdamW::AdamW(const AdamWOptions& options, const HeadLayout& layout, kernels::ThreadPool& pool)
    : options_(checked(options)),
      layout_(layout),
      pool_(pool),
      mean_(layout.size),
      variance_(layout.size) {}

double AdamW::update(std::span<const float> gradients, double scale, float learning_rate,
                     std::span<float> parameters) {
  check(std::ssize(gradients) == layout_.size && std::ssize(parameters) == layout_.size,
        "{} gradients and {} parameters, expected {}", gradients.size(), parameters.size(),
        layout_.size);
  std::vector<double> squares(blocks_of(layout_.size));
  pool_.run(static_cast<int>(squares.size()), [&](int block) {
    const std::int64_t begin = block * kBlock;
    squares[block] =
        sum_of_squares(gradients.subspan(begin, std::min(kBlock, layout_.size - begin)));
  });
  double total = 0;
  for (const double part : squares) total += part;
  const double norm = std::sqrt(total) * scale;
  if (!std::isfinite(norm)) return norm;

  const bool clip = options_.max_gradient_norm > 0 && norm > options_.max_gradient_norm;
  ++updates_;
  const double t = static_cast<double>(updates_);
  const Update u{static_cast<float>(clip ? scale * (options_.max_gradient_norm / norm) : scale),
                 options_.beta1,
                 options_.beta2,
                 static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, t))),
                 static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, t))),
                 options_.epsilon};
  for (const TensorPlace& place : layout_.tensors) {
    const float decay = place.decays ? 1.0f - learning_rate * options_.weight_decay : 1.0f;
    pool_.run(blocks_of(place.size), [&](int block) {
      const std::int64_t begin = place.offset + block * kBlock;
      const std::int64_t size = std::min(kBlock, place.offset + place.size - begin);
      update_block(u, decay, gradients.subspan(begin, size), std::span(mean_).subspan(begin, size),
                   std::span(variance_).subspan(begin, size), parameters.subspan(begin, size));
    });
  }
  return norm;
}

void AdamW::save(ByteWriter& to) const {
  to.number(updates_);
  to.floats(mean_);
  to.floats(variance_);
}

void AdamW::restore(ByteReader& from) {
  updates_ = from.number("the optimizer's number of updates");
  from.floats("the optimizer's means", mean_);
  from.floats("the optimizer's variances", variance_);
  if (std::any_of(variance_.begin(), variance_.end(), [](float value) { return value < 0; })) {
    throw ConfigError("{}: the optimizer's variances have a negative one", from.source());
  }
}

}  // namespace paceline::drafter
