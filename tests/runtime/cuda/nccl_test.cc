#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/backend.h"
#include "tests/parallel/nccl/nccl_ranks.h"
#include "tests/runtime/cuda/drafting_rank.h"
#include "tests/runtime/cuda/few_requests.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/stream.h"

// Ranks whose devices exchange as by NCCL: nothing but the emulated devices' own memory is used,
// and steps are recorded and repeated with their exchanges.

namespace paceline::runtime {
namespace {

using parallel::Communicator;

struct Network : parallel::FakeNcclNetwork {
  explicit Network(int size)
      : FakeNcclNetwork(size, {.copy =
                                   [](void* to, const void* from, std::size_t bytes) {
                                     const simt::HostAccess access;
                                     std::memcpy(to, from, bytes);
                                   },
                               .allocate = simt::allocate,
                               .free = simt::free}) {}
};

/// A place on the emulated stream: in what it records, or behind what waits.
parallel::NcclStream stream_of(const kernels::Backend& backend) {
  const auto native = backend.native_stream();
  auto* const stream = static_cast<SimtStream*>(native->stream);
  return {.wait = native->wait, .put = [stream](std::function<void()> work) {
            const bool records = stream->recorded != nullptr;
            if (records) {
              stream->recorded->kernels.push_back(std::move(work));
            } else {
              simt::put(stream, std::move(work));
            }
            return records;
          }};
}

/// Runs `body` as every rank, each a thread with a device of its own.
void run_cuda_ranks(Network& network, int size, bool graphs,
                    const std::function<void(kernels::Backend&, Communicator&)>& body) {
  parallel::RankState state;
  state.set_crowded(true);
  parallel::JobEnds ends;
  parallel::run_ranks(size, parallel::kSharedChunk, state, [&](Communicator& host) {
    const auto backend = kernels::make_cuda_backend({.graphs = graphs});
    const auto group = parallel::join_nccl(host, network, state, ends,
                                           parallel::AllReduce::kCanonical, stream_of(*backend));
    body(*backend, *group);
  });
  EXPECT_THAT(ends.all(), testing::IsEmpty());
}

Answers expected_answers() {
  return answers_of(*kernels::make_cpu_backend({}), *parallel::make_single(), {});
}

/// What the ranks' backends recorded and repeated.
class Counts {
 public:
  void add(const kernels::Backend& backend) {
    const std::lock_guard lock(mutex_);
    const kernels::RepeatCounts counts = backend.repeat_counts();
    recorded_.push_back(counts.recorded);
    repeated_.push_back(counts.repeated);
  }
  /// On each rank as often as on all others; not at all unless there are graphs.
  void check(bool graphs) const {
    EXPECT_THAT(recorded_, testing::Each(recorded_[0]));
    EXPECT_THAT(repeated_, testing::Each(repeated_[0]));
    EXPECT_EQ(recorded_[0] > 0, graphs);
    EXPECT_EQ(repeated_[0] > 0, graphs);
  }

 private:
  std::mutex mutex_;
  std::vector<std::int64_t> recorded_, repeated_;
};

// Three ranks have different numbers of shards.
TEST(CudaNccl, RanksRepeatStepsWithTheirExchangesAndGiveTheSameAnswers) {
  const Answers expected = expected_answers();
  const std::pair<int, bool> cases[] = {{2, true}, {2, false}, {3, true}, {4, true}};
  for (const auto& [ranks, graphs] : cases) {
    Network network(ranks);
    Counts counts;
    run_cuda_ranks(network, ranks, graphs, [&](kernels::Backend& backend, Communicator& group) {
      EXPECT_EQ(answers_of(backend, group, {}), expected) << group.size() << " ranks";
      if (group.size() == 3) {
        Oracle oracle(few_requests(), expected);
        EXPECT_EQ(answers_of(backend, group, {.drafter = &oracle, .shape = {2, 4, 8}}), expected);
      }
      counts.add(backend);
    });
    counts.check(graphs);
    EXPECT_EQ(network.repeated() > 0, graphs);
    EXPECT_GE(network.registrations(), ranks);
  }
}

// The head's searches look their tokens up in the model's embedding, of which each rank has a part.
TEST(CudaNccl, RanksRepeatDraftsWithTheirExchanges) {
  const Answers expected = expected_answers();
  for (const int ranks : {2, 4}) {
    Network network(ranks);
    Counts counts;
    run_cuda_ranks(network, ranks, true, [&](kernels::Backend& backend, Communicator& group) {
      DraftingRank rank({3, 3, 0}, backend, group);
      EXPECT_EQ(run_to_end(rank.engine(), few_requests()), expected);
      EXPECT_GT(rank.engine().stats().tree_rows, 0);
      EXPECT_GT(rank.engine().stats().steps_ahead, 0);
      counts.add(backend);
    });
    counts.check(true);
  }
}

// Else the others would repeat what this rank calls, which NCCL does not allow.
TEST(CudaNccl, WhenOneRankForgetsAllDo) {
  const Answers expected = expected_answers();
  Network network(3);
  Counts counts;
  run_cuda_ranks(network, 3, true, [&](kernels::Backend& backend, Communicator& group) {
    FixtureRank rank("llama_int4", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, backend,
                     group);
    std::int64_t repeated = 0, forgotten = 0;
    bool forgot = false;
    const auto forget_once = [&](Control&) {
      const kernels::RepeatCounts now = backend.repeat_counts();
      if (!forgot && now.repeated > 0) {
        forgot = true;
        repeated = now.repeated;
        forgotten = now.forgotten;
        if (group.rank() == 1) backend.forget_repeats();
      }
    };
    EXPECT_EQ(run_to_end(rank.engine(), few_requests(), forget_once), expected);
    EXPECT_TRUE(forgot);
    EXPECT_GT(backend.repeat_counts().forgotten, forgotten);
    EXPECT_GT(backend.repeat_counts().repeated, repeated);  // recorded anew
    counts.add(backend);
  });
  counts.check(true);
}

// The host has started a whole step and waits for its end.
TEST(CudaNccl, ARankThatHangsInARepeatedStepIsNamed) {
  parallel::RankState state;
  state.set_crowded(true);
  parallel::JobEnds ends;
  Network network(2);
  parallel::run_ranks(2, parallel::kSharedChunk, state, [&](Communicator& host) {
    const auto backend = kernels::make_cuda_backend({});
    const auto group = parallel::join_nccl(host, network, state, ends,
                                           parallel::AllReduce::kCanonical, stream_of(*backend));
    FixtureRank rank("llama_int4", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, *backend,
                     *group);
    Control control;
    control.admit = few_requests();
    bool stalled = false;
    try {
      do {
        rank.engine().step(control);
        control = {};
        if (!stalled && backend->repeat_counts().repeated > 0) {
          stalled = true;
          host.barrier();
          network.stall(1);
          state.enter("decode", std::chrono::seconds(2));
        }
      } while (!rank.engine().idle());
      ADD_FAILURE() << "the step ended";
    } catch (const FatalError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("for an exchange by NCCL with rank " +
                                                   std::to_string(1 - host.rank()) + " in decode"));
    }
  });
  EXPECT_THAT(ends.all(), testing::Contains(
                              testing::HasSubstr("for an exchange by NCCL with rank 1 in decode")));
  EXPECT_EQ(network.destroyed(), 0);
}

}  // namespace
}  // namespace paceline::runtime
