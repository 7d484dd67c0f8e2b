#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/core/exact_math.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/partials.h"
#include "kernels/cuda/row_sum.h"

namespace paceline::kernels::cuda {
namespace {

// ---- element by element

__global__ void sum_partials_kernel(const float* partials, const Merges merges, std::int64_t size,
                                    const float* residual, float* out) {
  join_stream();
  for (std::int64_t i = first_element(); i < size; i += element_step()) {
    const float* const element[] = {partials + i};
    add_partials(
        element, size, merges.count, [&](int partial) { return merges.after[partial]; },
        [&](int, const float* sum, int) {
          out[i] = residual != nullptr ? residual[i] + *sum : *sum;
        });
  }
}

__global__ void rope_table_kernel(const RopeTableParams params) {
  join_stream();
  const int half = params.head_dim / 2;
  for (std::int64_t i = first_element(); i < params.rows * half; i += element_step()) {
    const auto position = static_cast<float>(params.positions[i / half]);
    const exact::SinCos angle = exact::sin_cos(position * params.inv_freq[i % half]);
    params.cos[i] = static_cast<float>(angle.cos);
    params.sin[i] = static_cast<float>(angle.sin);
  }
}

__global__ void gather_rows_kernel(const GatherRowsParams params) {
  join_stream();
  for (std::int64_t i = first_element(); i < params.rows * params.width; i += element_step()) {
    params.out[i] = params.in[params.index[i / params.width] * params.width + i % params.width];
  }
}

__global__ void join_rows_kernel(const JoinRowsParams params) {
  join_stream();
  const std::int64_t width = params.left_width + params.right_width;
  for (std::int64_t i = first_element(); i < params.rows * width; i += element_step()) {
    const std::int64_t row = i / width;
    const std::int64_t col = i % width;
    params.out[i] = col < params.left_width
                        ? params.left[params.left_index[row] * params.left_width + col]
                        : params.right[row * params.right_width + (col - params.left_width)];
  }
}

__global__ void place_columns_kernel(const PlaceColumnsParams params) {
  join_stream();
  for (std::int64_t i = first_element(); i < params.rows * params.width; i += element_step()) {
    params.out[i / params.width * params.out_width + params.first + i % params.width] =
        params.in[i];
  }
}

__global__ void activate_kernel(const ActivateParams params) {
  join_stream();
  for (std::int64_t i = first_element(); i < params.rows * params.width; i += element_step()) {
    float y = params.in[i];
    if (params.addend != nullptr) y += params.addend[i];
    if (params.bias != nullptr) y += params.bias[i % params.width];
    if (params.activation == Activation::kSilu) y = y / (1.0f + exact::exp(-y));
    params.out[i] = params.residual != nullptr ? params.residual[i] + y : y;
  }
}

// ---- sums of a row: one block for each

constexpr int kRowThreads = 256;

__global__ void __launch_bounds__(kRowThreads) rms_norm_kernel(const RmsNormParams params) {
  join_stream();
  const float* in = params.in + blockIdx.x * params.width;
  float* out = params.out + blockIdx.x * params.width;
  const float scale = rms_norm_scale(in, params.width, params.eps);
  for (std::int64_t i = threadIdx.x; i < params.width; i += blockDim.x) {
    out[i] = in[i] * scale * params.weight[i];
  }
}

__global__ void __launch_bounds__(kRowThreads)
    token_log_probs_kernel(const TokenLogProbsParams params) {
  join_stream();
  const std::int64_t row = blockIdx.x;
  const std::int32_t target = params.targets[row];
  if (target < 0 || target >= params.vocab) __trap();
  const float* logits = params.logits + row * params.vocab;
  float own = logits[0];
  int any_not_finite = 0;
  for (std::int64_t id = threadIdx.x; id < params.vocab; id += blockDim.x) {
    if (!std::isfinite(logits[id])) any_not_finite = 1;
    own = logits[id] > own ? logits[id] : own;
  }
  if (__syncthreads_or(any_not_finite) != 0) {
    if (threadIdx.x == 0) params.log_probs[row] = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  const double max = reduce_block(own, [](float a, float b) { return a > b ? a : b; });
  const double sum = sum_row<double>(
      params.vocab,
      [&](std::int64_t id) { return exact::exp(static_cast<double>(logits[id]) - max); },
      [](double lane, double term) { return lane + term; });
  if (threadIdx.x == 0) {
    params.log_probs[row] = (static_cast<double>(logits[target]) - max) - exact::log(sum);
  }
}

}  // namespace

void sum_partials(const SumPartialsParams& params, cudaStream_t stream) {
  const Merges merges = merges_of(params.merges);
  launch("sum_partials", shape_of_elements(params.size), stream, sum_partials_kernel,
         params.partials, merges, params.size, params.residual, params.out);
}

void rope_table(const RopeTableParams& params, cudaStream_t stream) {
  launch("rope_table", shape_of_elements(params.rows * (params.head_dim / 2)), stream,
         rope_table_kernel, params);
}

void gather_rows(const GatherRowsParams& params, cudaStream_t stream) {
  launch("gather_rows", shape_of_elements(params.rows * params.width), stream, gather_rows_kernel,
         params);
}

void join_rows(const JoinRowsParams& params, cudaStream_t stream) {
  launch("join_rows", shape_of_elements(params.rows * (params.left_width + params.right_width)),
         stream, join_rows_kernel, params);
}

void place_columns(const PlaceColumnsParams& params, cudaStream_t stream) {
  launch("place_columns", shape_of_elements(params.rows * params.width), stream,
         place_columns_kernel, params);
}

void activate(const ActivateParams& params, cudaStream_t stream) {
  launch("activate", shape_of_elements(params.rows * params.width), stream, activate_kernel,
         params);
}

void rms_norm(const RmsNormParams& params, cudaStream_t stream) {
  launch("rms_norm", shape_of_rows<float>(params.rows, params.width, kRowThreads), stream,
         rms_norm_kernel, params);
}

void token_log_probs(const TokenLogProbsParams& params, cudaStream_t stream) {
  launch("token_log_probs", shape_of_rows<double>(params.rows, params.vocab, kRowThreads), stream,
         token_log_probs_kernel, params);
}

}  // namespace paceline::kernels::cuda
