#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/cuda/backend.h"
#include "tests/parallel/nccl/nccl_ranks.h"
#include "tests/runtime/cuda/few_requests.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/stream.h"

namespace paceline::runtime {
namespace {

// The ranks' devices exchange as by NCCL: nothing but the emulated devices' own memory is used.
TEST(CudaEngine, RanksThatExchangeByNcclGiveTheSameAnswers) {
  const auto single = parallel::make_single();
  const auto cpu = kernels::make_cpu_backend({});
  const Answers expected = answers_of(*cpu, *single, {});
  const auto copy = [](void* to, const void* from, std::size_t bytes) {
    const simt::HostAccess access;
    std::memcpy(to, from, bytes);
  };
  parallel::FakeNcclNetwork network(3, copy, simt::finish_streams);
  parallel::run_nccl_ranks(network, 3, parallel::AllReduce::kCanonical,
                           [&](parallel::Communicator& communicator) {
                             const auto backend = kernels::make_cuda_backend({});
                             EXPECT_EQ(answers_of(*backend, communicator, {}), expected);
                           });
  EXPECT_GT(network.operations(parallel::NcclOperation::Kind::kBroadcast), 0);
}

}  // namespace
}  // namespace paceline::runtime
