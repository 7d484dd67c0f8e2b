#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "drafter/lookup.h"
#include "drafter/merged_drafter.h"
#include "kernels/core/error.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/engine/rule_drafters.h"

// Random loads on small caches: whatever becomes of requests and of what is drafted for them, the
// books of the scheduler balance after every step, and every page is free at the end.

namespace paceline::runtime {
namespace {

using Random = std::mt19937;

int draw(Random& random, int low, int high) {
  return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
}

constexpr int kRequests = 14;

std::vector<EngineRequest> random_requests(Random& random) {
  std::vector<EngineRequest> requests(kRequests);
  for (std::uint64_t uid = 0; uid < kRequests; ++uid) {
    EngineRequest& request = requests[uid];
    request.uid = uid;
    for (int i = draw(random, 1, 60); i > 0; --i) {
      request.prompt.push_back(draw(random, 0, kGuessed - 1));
    }
    request.max_new_tokens = draw(random, 1, 40);
    request.temperature = 0.5f * static_cast<float>(draw(random, 0, 3));
    request.top_k = draw(random, 0, 2) * 20;
    request.seed = uid + 1000;
    request.ignore_eos = draw(random, 0, 3) == 0;
    request.speculative = draw(random, 0, 3) > 0;
  }
  return requests;
}

/// From hardly enough for the largest request to enough for a few.
SchedulerLimits random_limits(Random& random) {
  const int sequences = draw(random, 1, 6);
  return {.max_sequences = sequences,
          .max_rows = draw(random, sequences, 50),
          .page_size = kPageSize,
          .num_pages = draw(random, 3, 5),
          .max_sampled = draw(random, 0, 50)};
}

drafter::DraftShape random_shape(Random& random) {
  return {draw(random, 0, 4), draw(random, 0, 6), draw(random, 0, 20)};
}

/// Each of the drafters in turn.
class Drafters {
 public:
  Drafters(const std::vector<EngineRequest>& requests, const Answers& answers)
      : oracle_(requests, answers), liar_(requests, answers), both_({&oracle_, &lookup_}) {}
  drafter::Drafter* at(unsigned turn) {
    drafter::Drafter* const all[] = {nullptr, &random_, &eos_, &oracle_, &liar_, &lookup_, &both_};
    return all[turn % std::size(all)];
  }

 private:
  RandomDrafter random_;
  StubbornDrafter eos_{159};
  Oracle oracle_;
  Liar liar_;
  drafter::LookupDrafter lookup_;
  drafter::MergedDrafter both_;
};

/// What has to hold between any two steps.
void check_books(const Scheduler& scheduler) {
  std::set<std::int32_t> pages, states;
  std::size_t alive = 0, held = 0;
  for (std::uint64_t uid = 0; uid < kRequests; ++uid) {
    const Sequence* sequence = scheduler.find(uid);
    if (sequence == nullptr) continue;
    ++alive;
    EXPECT_LT(sequence->computed, sequence->length()) << "nothing to feed";
    EXPECT_LT(sequence->generated(), sequence->request.max_new_tokens) << "it should have ended";
    const auto held_slots = static_cast<std::int32_t>(sequence->pages.size()) * kPageSize;
    EXPECT_LE(sequence->computed, held_slots) << "keys and values without a page";
    held += sequence->pages.size();
    pages.insert(sequence->pages.begin(), sequence->pages.end());
    if (sequence->hidden_row >= 0) {
      EXPECT_TRUE(sequence->in_generation());
      EXPECT_TRUE(states.insert(sequence->hidden_row).second) << "two requests with one state";
    }
  }
  EXPECT_EQ(alive, scheduler.running() + scheduler.waiting());
  EXPECT_EQ(pages.size(), held) << "two requests with one page";
  const SchedulerLimits& limits = scheduler.limits();
  EXPECT_EQ(static_cast<std::int32_t>(held) + scheduler.pages().free_pages(), limits.num_pages);
  EXPECT_LE(scheduler.running(), static_cast<std::size_t>(limits.max_sequences));
  if (!states.empty()) {
    EXPECT_LT(*states.rbegin(), limits.max_sequences);
  }
}

/// How often what happened, over all loads.
struct Seen {
  std::int64_t cancels = 0, stops = 0, lengths = 0, preemptions = 0, accepted = 0, rejected = 0;
};

/// The leader's side of a load: admits, cancels and switches shapes at random. A request that is
/// cancelled has fewer tokens than it would have had; as for a stop string that a step completed,
/// the engine hears of it before the next one.
class Load {
 public:
  Load(unsigned seed, std::vector<EngineRequest> requests)
      : random_(seed), requests_(std::move(requests)) {}

  Control next() {
    Control control;
    while (admitted_ < requests_.size() && draw(random_, 0, 2) == 0) {
      control.admit.push_back(requests_[admitted_++]);
    }
    if (draw(random_, 0, 9) == 0 && admitted_ > 0) {
      const auto uid =
          static_cast<std::uint64_t>(draw(random_, 0, static_cast<int>(admitted_) - 1));
      control.cancel.push_back(uid);  // perhaps one that has ended, or still waits
      cut_.insert(uid);
    }
    if (draw(random_, 0, 2) == 0) control.draft = random_shape(random_);
    return control;
  }
  bool admits_more() const { return admitted_ < requests_.size(); }
  bool cut(std::uint64_t uid) const { return cut_.count(uid) > 0; }

 private:
  Random random_;
  std::vector<EngineRequest> requests_;
  std::size_t admitted_ = 0;
  std::set<std::uint64_t> cut_;
};

/// Answers, of requests that are cut their first tokens.
Answers run_load(Engine& engine, Load* leader, Seen& seen) {
  Answers answers;
  int steps = 0;
  bool stop = false;
  while (!engine.stopped()) {
    Control control;
    if (leader != nullptr) {
      control = leader->next();
      control.stop = stop;
      if (stop) control.draft.reset();
      seen.cancels += std::ssize(control.cancel);
    }
    for (const TokenEvent& event : engine.step(control)) {
      answers[event.uid].push_back(event.token);
      seen.stops += event.end == EndReason::kStop;
      seen.lengths += event.end == EndReason::kLength;
    }
    check_books(engine.scheduler());
    if (leader != nullptr) stop = engine.idle() && !leader->admits_more();
    check(++steps < 5000, "the load does not come to an end");
  }
  return answers;
}

void run_on_ranks(unsigned seed, Seen& seen) {
  Random random(seed);
  const std::vector<EngineRequest> requests = random_requests(random);
  const SchedulerLimits limits = random_limits(random);
  const drafter::DraftShape shape = random_shape(random);
  const auto plain_backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank plain("llama_gqa", {.limits = kAmple}, *plain_backend, *single);
  const Answers expected = run_to_end(plain.engine(), requests);

  const int ranks = 1 + static_cast<int>(seed % 2);
  parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
    const bool leads = communicator.rank() == 0;
    const auto backend = kernels::make_cpu_backend({});
    Drafters drafters(requests, expected);
    FixtureRank rank("llama_gqa", {.limits = limits}, *backend, communicator,
                     {.drafter = drafters.at(seed / 2), .shape = shape});
    Load load(seed, requests);
    Seen here;
    const Answers answers = run_load(rank.engine(), leads ? &load : nullptr, here);
    EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), limits.num_pages);
    if (!leads) return;
    for (const EngineRequest& request : requests) {
      const auto found = answers.find(request.uid);
      const Ids ids = found == answers.end() ? Ids{} : found->second;
      Ids whole = expected.at(request.uid);
      if (load.cut(request.uid)) whole.resize(std::min(whole.size(), ids.size()));
      EXPECT_EQ(ids, whole) << "request " << request.uid;
    }
    const EngineStats stats = rank.engine().stats();
    here.preemptions = stats.preemptions;
    here.accepted = std::accumulate(stats.accepted_at.begin(), stats.accepted_at.end(), 0L);
    here.rejected = stats.tree_rows - here.accepted;
    seen.cancels += here.cancels;
    seen.stops += here.stops;
    seen.lengths += here.lengths;
    seen.preemptions += here.preemptions;
    seen.accepted += here.accepted;
    seen.rejected += here.rejected;
  });
}

TEST(PageLeak, AfterAnyLoadEveryPageIsFree) {
  Seen seen;
  for (unsigned seed = 0; seed < 70; ++seed) {
    run_on_ranks(seed, seen);
    if (HasFailure()) FAIL() << "seed " << seed;
  }
  // Each of these happened, and often.
  EXPECT_GT(seen.cancels, 100);
  EXPECT_GT(seen.stops, 30);
  EXPECT_GT(seen.lengths, 100);
  EXPECT_GT(seen.preemptions, 50);
  EXPECT_GT(seen.accepted, 1000);
  EXPECT_GT(seen.rejected, 1000);
}

}  // namespace
}  // namespace paceline::runtime
