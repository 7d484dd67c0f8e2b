#include <gtest/gtest.h>
#include <test_device.h>

#include <cmath>

#include "kernels/cuda/backend.h"
#include "kernels/cuda/cublaslt/calls.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/cuda/few_requests.h"

// --numerics fast through model and engine. On a GPU cuBLASLt multiplies; on the CPU
// tests/kernels/cuda/fake_cublaslt.cc, in an order that is not ours either.

namespace paceline::runtime {
namespace {

class CudaFastNumerics : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = kernels::cuda::cublaslt_missing();
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

std::vector<float> logits_of(const char* model, bool fast, parallel::Communicator& communicator) {
  const Ids ids = {5, 9, 2, 40, 7, 7, 31, 8, 1, 60, 3, 12};
  const auto backend = kernels::make_cuda_backend({.fast = fast});
  FixtureRank rank(model, {.kv = kernels::KvFormat::kBf16}, *backend, communicator);
  return sequence_logits(rank, *backend, ids, 5);
}

/// The logits' distance from `expected`, by the spread of those.
double relative_distance(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) return INFINITY;
  double squares = 0, norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    squares += std::pow(double{got[i]} - expected[i], 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(squares / norm);
}

// In both modes products are of bf16 (or fp16) numbers and sums fp32; where a sum's last bits make
// an activation or a key round the other way, that moves it by 2^-9 of itself.
TEST_F(CudaFastNumerics, LogitsAreNearTheCanonicalOnes) {
  for (const char* const model : {"llama_bf16", "llama_fp16"}) {
    const std::vector<float> canonical = logits_of(model, false, *parallel::make_single());
    for (const int ranks : {1, 3}) {
      parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
        const std::vector<float> fast = logits_of(model, true, communicator);
        EXPECT_LT(relative_distance(fast, canonical), 0x1p-8) << model << ", " << ranks << " ranks";
        // A library may happen to add as we do; what stands in for it does not.
        if (!kernels::kOnGpu) {
          EXPECT_NE(fast, canonical) << "nothing was left to the library";
        }
      });
    }
  }
}

TEST_F(CudaFastNumerics, OtherWeightsGiveTheSameLogits) {
  EXPECT_EQ(logits_of("llama_int4", true, *parallel::make_single()),
            logits_of("llama_int4", false, *parallel::make_single()));
}

// The same steps on the same GPU: recorded or not, in a second run or the first.
TEST_F(CudaFastNumerics, TheSameRunGivesTheSameAnswers) {
  const auto single = parallel::make_single();
  const auto answers_of_run = [&](bool graphs) {
    const auto backend = kernels::make_cuda_backend({.graphs = graphs, .fast = true});
    FixtureRank rank("llama_bf16", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, *backend,
                     *single);
    std::vector<EngineRequest> requests = few_requests();
    requests.resize(2);
    return run_to_end(rank.engine(), requests);
  };
  const Answers expected = answers_of_run(true);
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(answers_of_run(false), expected);
}

}  // namespace
}  // namespace paceline::runtime
