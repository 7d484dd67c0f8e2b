#include "library_products.h"

#include <dnnl.hpp>
#include <memory>

#include "kernels/core/error.h"

// OpenMP's own API, which oneDNN takes its number of threads from; its header is not there for
// every compiler.
extern "C" void omp_set_num_threads(int threads);

namespace paceline::kernels {
namespace {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

struct Bf16Product {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::memory in, rounded, weights, out;
  dnnl::reorder round;
  dnnl::matmul product;
};

}  // namespace

std::function<void()> library_fp32(const std::vector<float>& weight, std::int64_t n, std::int64_t k,
                                   const float* in, std::int64_t rows, float* out) {
  omp_set_num_threads(1);
  return [=, &weight] {
    const dnnl_status_t status =
        dnnl_sgemm('N', 'T', rows, n, k, 1.0f, in, k, weight.data(), k, 0.0f, out, n);
    check(status == dnnl_success, "oneDNN refuses a product of {} rows", rows);
  };
}

std::function<void()> library_bf16(const std::vector<float>& weight, std::int64_t n, std::int64_t k,
                                   const float* in, std::int64_t rows, float* out) {
  omp_set_num_threads(1);
  const auto job = std::make_shared<Bf16Product>();
  const dnnl::engine& engine = job->engine;
  const dnnl::memory::desc shape_in({rows, k}, Type::f32, Tag::ab);
  const dnnl::memory::desc shape_rounded({rows, k}, Type::bf16, Tag::ab);
  const dnnl::memory::desc shape_out({rows, n}, Type::f32, Tag::ab);
  const dnnl::matmul::primitive_desc plan(
      dnnl::matmul::desc(shape_rounded, {{k, n}, Type::bf16, Tag::any}, shape_out), engine);
  job->in = dnnl::memory(shape_in, engine, const_cast<float*>(in));
  job->rounded = dnnl::memory(shape_rounded, engine);
  job->out = dnnl::memory(shape_out, engine, out);
  job->weights = dnnl::memory(plan.weights_desc(), engine);
  job->round = dnnl::reorder(job->in, job->rounded);
  job->product = dnnl::matmul(plan);
  // As [k, n], of which the rows of the checkpoint are the columns.
  dnnl::memory plain({{k, n}, Type::f32, Tag::ba}, engine, const_cast<float*>(weight.data()));
  dnnl::reorder(plain, job->weights).execute(job->stream, plain, job->weights);
  job->stream.wait();
  return [job] {
    job->round.execute(job->stream, job->in, job->rounded);
    job->product.execute(
        job->stream,
        {{DNNL_ARG_SRC, job->rounded}, {DNNL_ARG_WEIGHTS, job->weights}, {DNNL_ARG_DST, job->out}});
    job->stream.wait();
  };
}

}  // namespace paceline::kernels
