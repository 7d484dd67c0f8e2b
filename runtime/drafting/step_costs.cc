#include "runtime/drafting/step_costs.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "kernels/core/function_ref.h"
#include "runtime/engine/kv_cache.h"

namespace paceline::runtime {
namespace {

using Points = std::vector<StepCosts::Point>;

double between(const Points& points, std::int32_t rows) {
  if (points.empty()) return 0;
  if (points.size() == 1 || rows <= points.front().rows) return points.front().seconds;
  auto upper = std::find_if(points.begin() + 1, points.end(),
                            [&](const StepCosts::Point& point) { return point.rows >= rows; });
  if (upper == points.end()) --upper;
  const StepCosts::Point& a = *(upper - 1);
  const StepCosts::Point& b = *upper;
  return a.seconds + (b.seconds - a.seconds) * (rows - a.rows) / (b.rows - a.rows);
}

/// The least of a few runs, which disturbances spare.
double shortest(kernels::FunctionRef<void()> work) {
  constexpr int kRuns = 4;
  double best = std::numeric_limits<double>::infinity();
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count());
  }
  return best;
}

/// Sizes up to `most`, closer together where a step's cost bends.
std::vector<std::int32_t> sizes_up_to(std::int32_t most) {
  std::vector<std::int32_t> sizes;
  for (const std::int32_t size : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128}) {
    if (size <= most) sizes.push_back(size);
  }
  return sizes;
}

/// Rows of one sequence behind a context of some length, the whole of it in the first pages.
PackedBatch batch_of(std::int32_t rows, const kernels::KvPool& cache) {
  constexpr std::int32_t kContext = 96;
  const std::int32_t room = cache.num_pages * cache.page_size;
  const std::int32_t begin = std::clamp(room - rows, 0, kContext);
  PackedBatch batch;
  batch.tokens.assign(static_cast<std::size_t>(rows), 0);
  for (std::int32_t row = 0; row < rows; ++row) {
    const std::int32_t position = begin + row;
    batch.positions.push_back(position);
    batch.rows.push_back(
        {.sequence = 0, .position = position, .slot = position, .base = position + 1});
    batch.sampled_rows.push_back(row);
  }
  batch.page_stride = (begin + rows + cache.page_size - 1) / cache.page_size;
  batch.page_table.resize(static_cast<std::size_t>(batch.page_stride));
  std::iota(batch.page_table.begin(), batch.page_table.end(), 0);
  return batch;
}

Points measure_steps(const MeasuredEngine& engine, double patience) {
  const std::int32_t room = engine.cache.num_pages * engine.cache.page_size;
  const kernels::Buffer tokens =
      engine.backend.allocate(static_cast<std::size_t>(engine.max_rows) * sizeof(std::int32_t));
  Points points;
  double spent = 0;
  for (const std::int32_t rows : sizes_up_to(std::min(engine.max_rows, room))) {
    const PackedBatch batch = batch_of(rows, engine.cache);
    const double seconds = shortest([&] {
      const float* hidden = engine.model.forward(batch, engine.cache);
      engine.model.largest(engine.model.part_of_logits(hidden, rows), tokens.as<std::int32_t>(),
                           rows);
      engine.backend.synchronize();
    });
    points.push_back({rows, seconds});
    // Ranks must agree on when to stop.
    spent += 4 * seconds;
    double limit = spent;
    engine.communicator.broadcast(std::as_writable_bytes(std::span(&limit, 1)), 0);
    if (limit > patience) break;
  }
  return points;
}

// One depth more for all beams of one request or several, from hidden states of zeros.
Points measure_drafts(const MeasuredEngine& engine, double patience) {
  constexpr std::int32_t kWidth = 16;
  constexpr std::int32_t kRequests = 8;
  const auto hidden_size = static_cast<std::size_t>(engine.model.config().hidden_size);
  const kernels::Buffer hidden = engine.backend.allocate(hidden_size * sizeof(float));
  const std::vector<std::int32_t> text{0};
  std::vector<drafter::TokenTree> trees;
  const auto seconds = [&](std::int32_t requests, std::int32_t width, std::int32_t depth) {
    drafter::DraftRequest request{.tokens = text, .shape = {.width = width, .depth = depth}};
    const std::vector<drafter::DraftRequest> all(static_cast<std::size_t>(requests), request);
    return shortest([&] { engine.head->draft({hidden.as<float>(), all}, trees); });
  };
  Points points;
  double spent = 0;
  for (const std::int32_t beams : sizes_up_to(kWidth * kRequests)) {
    const std::int32_t requests = (beams + kWidth - 1) / kWidth;
    const std::int32_t width = beams / requests;
    const double shallow = seconds(requests, width, 1);
    const double deep = seconds(requests, width, 3);
    points.push_back({beams, std::max(0.0, (deep - shallow) / 2)});
    spent += 4 * (shallow + deep);
    double limit = spent;
    engine.communicator.broadcast(std::as_writable_bytes(std::span(&limit, 1)), 0);
    if (limit > patience) break;
  }
  return points;
}

// More rows never take less: where they seem to, a disturbance made the fewer ones look dear.
void take_out_disturbances(Points& points) {
  for (std::size_t i = points.size(); i-- > 1;) {
    points[i - 1].seconds = std::min(points[i - 1].seconds, points[i].seconds);
  }
}

void share(Points& points, parallel::Communicator& communicator) {
  communicator.broadcast(std::as_writable_bytes(std::span(points)), 0);
}

}  // namespace

double StepCosts::step_seconds(std::int32_t rows) const { return between(step, rows); }
double StepCosts::draft_seconds(std::int32_t beams) const { return between(draft, beams); }

void warm_up(LlamaModel& model, kernels::Backend& backend, const kernels::KvPool& cache) {
  const kernels::Buffer token = backend.allocate(sizeof(std::int32_t));
  const float* hidden = model.forward(batch_of(1, cache), cache);
  model.largest(model.part_of_logits(hidden, 1), token.as<std::int32_t>(), 1);
  backend.synchronize();
}

StepCosts measure_step_costs(const MeasuredEngine& engine) {
  constexpr double kPatience = 0.3;
  StepCosts costs;
  costs.step = measure_steps(engine, kPatience);
  if (engine.head != nullptr) costs.draft = measure_drafts(engine, kPatience);
  for (Points* points : {&costs.step, &costs.draft}) {
    take_out_disturbances(*points);
    share(*points, engine.communicator);
  }
  return costs;
}

}  // namespace paceline::runtime
