#include "runtime/engine/scheduler.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "kernels/api.h"
#include "kernels/core/error.h"
#include "runtime/engine/packed_batch.h"

namespace paceline::runtime {
namespace {

EngineRequest request(std::uint64_t uid, std::int32_t prompt, std::int32_t max_new = 8) {
  EngineRequest made;
  made.uid = uid;
  for (std::int32_t i = 0; i < prompt; ++i) made.prompt.push_back(100 * static_cast<int>(uid) + i);
  made.max_new_tokens = max_new;
  return made;
}

// What the engine does after a forward: every planned row is computed, every sampled token
// appended, and of the drafts as many as `drafted` says of each request in generation.
void accept(Scheduler& scheduler, const StepPlan& plan, const std::vector<int>& drafted = {}) {
  for (std::size_t i = 0; i < drafted.size(); ++i) {
    Sequence& sequence = *plan.generation[i].sequence;
    sequence.computed += drafted[i];
    sequence.tokens.insert(sequence.tokens.end(), static_cast<std::size_t>(drafted[i]), 7);
  }
  for (const auto* group : {&plan.context, &plan.generation}) {
    for (const PlannedRows& planned : *group) {
      planned.sequence->computed += planned.rows;
      if (!planned.samples) continue;
      planned.sequence->tokens.push_back(7);
      planned.sequence->hidden_row = 0;
    }
  }
  for (const auto* group : {&plan.context, &plan.generation}) {
    for (const PlannedRows& planned : *group) {
      if (planned.sequence->generated() == planned.sequence->request.max_new_tokens) {
        scheduler.remove(planned.sequence->request.uid);
      }
    }
  }
}

// "1:3 2:4* | 3:1*": context rows of requests 1 and 2, a generation row of 3; * samples.
std::string text(const StepPlan& plan) {
  std::string out;
  const auto add = [&](const PlannedRows& planned) {
    if (!out.empty() && out.back() != ' ') out += ' ';
    out += std::to_string(planned.sequence->request.uid) + ":" + std::to_string(planned.rows) +
           (planned.samples ? "*" : "");
  };
  for (const PlannedRows& planned : plan.context) add(planned);
  if (!plan.generation.empty()) out += out.empty() ? "| " : " | ";
  for (const PlannedRows& planned : plan.generation) add(planned);
  return out;
}

std::string step(Scheduler& scheduler) {
  const StepPlan plan = scheduler.plan();
  const std::string planned = text(plan);
  accept(scheduler, plan);
  return planned;
}

TEST(Scheduler, CutsPromptsIntoChunksAndServesGenerationFirst) {
  Scheduler scheduler({.max_sequences = 3, .max_rows = 8, .page_size = 16, .num_pages = 16});
  scheduler.add(request(1, 5, 3));
  scheduler.add(request(2, 10));
  EXPECT_EQ(step(scheduler), "1:5* 2:3");
  EXPECT_EQ(step(scheduler), "2:7* | 1:1*");
  scheduler.add(request(3, 2));
  EXPECT_EQ(step(scheduler), "3:2* | 1:1* 2:1*");  // request 1 has its three tokens and leaves
  EXPECT_EQ(step(scheduler), "| 2:1* 3:1*");
}

TEST(Scheduler, HoldsBackWhatDoesNotFitTheBatch) {
  Scheduler scheduler({.max_sequences = 2, .max_rows = 64, .page_size = 16, .num_pages = 16});
  for (std::uint64_t uid = 1; uid <= 3; ++uid) scheduler.add(request(uid, 4, 2));
  EXPECT_EQ(step(scheduler), "1:4* 2:4*");
  EXPECT_EQ(scheduler.waiting(), 1u);
  EXPECT_EQ(step(scheduler), "| 1:1* 2:1*");
  EXPECT_EQ(step(scheduler), "3:4*");
}

TEST(Scheduler, PreemptsTheYoungestAndRecomputesItWithItsTokens) {
  // Two pages of 16 slots: both requests start, then the elder needs a second page.
  Scheduler scheduler({.max_sequences = 2, .max_rows = 64, .page_size = 16, .num_pages = 2});
  scheduler.add(request(1, 15, 4));
  scheduler.add(request(2, 14, 3));
  EXPECT_EQ(step(scheduler), "1:15* 2:14*");
  EXPECT_EQ(step(scheduler), "| 1:1* 2:1*");
  EXPECT_EQ(scheduler.find(2)->length(), 16);
  EXPECT_EQ(step(scheduler), "| 1:1*");  // its slot 16 needs the page that request 2 held
  EXPECT_EQ(scheduler.preemptions(), 1);
  EXPECT_EQ(scheduler.find(2)->computed, 0);
  EXPECT_EQ(step(scheduler), "| 1:1*");
  EXPECT_EQ(step(scheduler), "2:16*");  // prompt and the two tokens it had, in one go
  EXPECT_EQ(scheduler.pages().free_pages(), 2);
}

TEST(Scheduler, RemovesWaitingAndRunningRequests) {
  Scheduler scheduler({.max_sequences = 1, .max_rows = 8, .page_size = 16, .num_pages = 4});
  scheduler.add(request(1, 4));
  scheduler.add(request(2, 4));
  step(scheduler);
  scheduler.remove(1);
  scheduler.remove(2);
  scheduler.remove(2);  // ended by itself in the same step: nothing to do
  EXPECT_TRUE(scheduler.plan().empty());
  EXPECT_EQ(scheduler.pages().free_pages(), 4);
}

TEST(Scheduler, RefusesWhatCanNeverFit) {
  Scheduler scheduler({.max_sequences = 1, .max_rows = 8, .page_size = 16, .num_pages = 2});
  EXPECT_NO_THROW(scheduler.add(request(1, 30, 3)));  // feeds 32 tokens: the last is never fed
  EXPECT_THROW(scheduler.add(request(2, 30, 4)), FatalError);
  EXPECT_THROW(Scheduler({.max_sequences = 9, .max_rows = 8, .page_size = 16, .num_pages = 1}),
               FatalError);
}

// Under any load every request gets all of its tokens, and the pool is full again at the end.
TEST(Scheduler, ServesRandomLoadsToTheEnd) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    const SchedulerLimits limits{.max_sequences = draw(1, 6),
                                 .max_rows = draw(6, 20),
                                 .page_size = 16,
                                 .num_pages = draw(4, 12),
                                 .max_sampled = draw(0, 20)};
    Scheduler scheduler(limits);
    std::uint64_t uid = 0;
    int to_add = 20;
    int steps = 0;
    while (to_add > 0 || scheduler.running() + scheduler.waiting() > 0) {
      while (to_add > 0 && draw(0, 2) == 0) {
        scheduler.add(request(++uid, draw(1, 40), draw(1, 20)));
        --to_add;
      }
      if (draw(0, 30) == 0) scheduler.remove(static_cast<std::uint64_t>(draw(1, 20)));
      const StepPlan plan = scheduler.plan({draw(0, 4), draw(0, 5), draw(1, 12)});
      std::vector<drafter::TokenTree> trees;
      std::vector<int> drafted;
      int tree_rows = 0;
      for (const PlannedRows& planned : plan.generation) {
        const int deepest = std::min(planned.draft.depth, planned.max_depth);
        const int nodes = draw(0, std::min(deepest, planned.draft.max_nodes));
        trees.emplace_back();
        for (int node = 0; node < nodes; ++node) trees.back().add(node - 1, 7, 0, 0);
        drafted.push_back(draw(0, nodes));
        tree_rows += planned.draft.max_nodes;
      }
      EXPECT_LE(plan.rows() + tree_rows, limits.max_rows);
      EXPECT_LE(plan.context.size() + plan.generation.size(),
                static_cast<std::size_t>(limits.max_sequences));
      PackedBatch batch;
      pack(plan, trees, batch);
      for (const kernels::RowPlace& row : batch.rows) {
        const std::int64_t entry = row.sequence * batch.page_stride + row.slot / limits.page_size;
        EXPECT_GE(batch.page_table[static_cast<std::size_t>(entry)], 0) << "a row without a slot";
      }
      accept(scheduler, plan, drafted);
      ASSERT_LT(++steps, 5000) << "seed " << seed;
    }
    EXPECT_EQ(scheduler.pages().free_pages(), limits.num_pages) << "seed " << seed;
  }
}

TEST(PackedBatch, PutsContextRowsFirst) {
  // The example in packed_batch.h: a prompt of 5 in chunks of 3 beside a sequence of 9 tokens.
  Scheduler scheduler({.max_sequences = 2, .max_rows = 4, .page_size = 16, .num_pages = 4});
  scheduler.add(request(1, 4, 8));
  step(scheduler);
  for (int i = 0; i < 4; ++i) step(scheduler);
  scheduler.add(request(2, 5));
  PackedBatch batch;
  const StepPlan plan = scheduler.plan();
  pack(plan, std::vector<drafter::TokenTree>(plan.generation.size()), batch);
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{200, 201, 202, 7}));
  EXPECT_EQ(batch.positions, (std::vector<std::int32_t>{0, 1, 2, 8}));
  EXPECT_EQ(batch.rows[2].sequence, 0);
  EXPECT_EQ(batch.rows[3].sequence, 1);
  EXPECT_EQ(batch.rows[3].base, 9);
  EXPECT_EQ(batch.sampled_rows, (std::vector<std::int32_t>{3}));
  EXPECT_EQ(batch.sampling[0].index, 9u);
  EXPECT_EQ(batch.page_stride, 1);
  EXPECT_EQ(batch.page_table, (std::vector<std::int32_t>{1, 0}));
}

TEST(PackedBatch, PutsTreesBehindTheirSequences) {
  // The example in packed_batch.h: 9 known tokens with the tree a(b, c).
  Scheduler scheduler(
      {.max_sequences = 2, .max_rows = 16, .page_size = 16, .num_pages = 4, .max_sampled = 8});
  scheduler.add(request(1, 4, 20));
  for (int i = 0; i < 5; ++i) step(scheduler);
  const StepPlan plan = scheduler.plan({.width = 2, .depth = 2, .max_nodes = 4});
  ASSERT_EQ(plan.generation.size(), 1u);
  EXPECT_EQ(plan.generation[0].draft, (drafter::DraftShape{2, 2, 4}));
  std::vector<drafter::TokenTree> trees(1);
  trees[0].add(-1, 50, 0, 0);
  trees[0].add(0, 51, 0, 0);
  trees[0].add(0, 52, 0, 0);
  PackedBatch batch;
  pack(plan, trees, batch);
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{7, 50, 51, 52}));
  EXPECT_EQ(batch.positions, (std::vector<std::int32_t>{8, 9, 10, 10}));
  EXPECT_EQ(batch.rows[3].slot, 11);
  EXPECT_EQ(batch.rows[3].base, 9);
  const auto first = static_cast<std::size_t>(batch.rows[3].first_ancestor);
  EXPECT_EQ(batch.ancestors[first], 9);
  EXPECT_EQ(batch.ancestors[first + 1], 11);
  EXPECT_EQ(batch.sampled_rows, (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(batch.sampling[0].index, 9u);
  EXPECT_EQ(batch.sampling[3].index, 11u);
}

/// As the engine does while a step is under way.
void start(const StepPlan& plan) {
  for (const auto* group : {&plan.context, &plan.generation}) {
    for (const PlannedRows& planned : *group) {
      Sequence& sequence = *planned.sequence;
      sequence.computed += planned.rows;
      if (!planned.samples) continue;
      sequence.awaited += 1 + (planned.draft.max_nodes > 0 ? planned.draft.depth : 0);
      sequence.hidden_row = 0;
    }
  }
}

// The example in packed_batch.h again: the device, which has the tree, lays out what the host
// would; of four rows reserved for it one repeats the root.
TEST(PackedBatch, IsFinishedOnTheDeviceAsTheHostWould) {
  Scheduler scheduler(
      {.max_sequences = 2, .max_rows = 16, .page_size = 16, .num_pages = 4, .max_sampled = 8});
  scheduler.add(request(1, 4, 20));
  for (int i = 0; i < 4; ++i) step(scheduler);
  start(scheduler.plan());  // under way; it will give the ninth token, 7
  ASSERT_TRUE(scheduler.can_plan_ahead());
  StepPlan plan = scheduler.plan({.width = 2, .depth = 2, .max_nodes = 4});
  PackedBatch ahead;
  pack_for_device(plan, std::vector<std::int32_t>{0}, ahead);
  ASSERT_EQ(ahead.resumes.size(), 1u);

  const std::vector<kernels::PathNode> nodes = {
      {50, -1, 1, 0, 0}, {51, 0, 2, 0, 0}, {52, 0, 2, 0, 0}};
  const kernels::PathTree tree{.nodes = 3};
  const kernels::SequenceHead head{.length = 9, .token = 7, .most_tokens = 15};
  kernels::BeamPlan search;
  const kernels::BatchArrays arrays{ahead.tokens.data(),       ahead.positions.data(),
                                    ahead.rows.data(),         ahead.ancestors.data(),
                                    ahead.sampling.data(),     ahead.tree_tokens.data(),
                                    ahead.tree_parents.data(), ahead.accept.data()};
  const auto backend = kernels::make_reference_backend();
  backend->resume_sequences({ahead.resumes.data(), &head, arrays, &search, 1});
  backend->place_trees({ahead.places.data(), &tree, nodes.data(), 3, arrays, 1});

  Sequence& sequence = *plan.generation[0].sequence;
  sequence.awaited = 0;
  sequence.tokens.push_back(7);
  std::vector<drafter::TokenTree> trees(1);
  trees[0].add(-1, 50, 0, 0);
  trees[0].add(0, 51, 0, 0);
  trees[0].add(0, 52, 0, 0);
  PackedBatch expected;
  pack(plan, trees, expected);
  EXPECT_EQ(ahead.tokens, (std::vector<std::int32_t>{7, 50, 51, 52, 7}));
  ASSERT_EQ(expected.tokens.size(), 4u);
  for (std::size_t row = 0; row < 5; ++row) {
    const std::size_t same = row < 4 ? row : 0;
    EXPECT_EQ(ahead.tokens[row], expected.tokens[same]);
    EXPECT_EQ(ahead.positions[row], expected.positions[same]);
    const kernels::RowPlace &mine = ahead.rows[row], &theirs = expected.rows[same];
    EXPECT_EQ(mine.position, theirs.position);
    EXPECT_EQ(mine.slot, theirs.slot);
    EXPECT_EQ(mine.base, theirs.base);
    for (std::int32_t i = 0; i <= mine.position - mine.base; ++i) {
      EXPECT_EQ(ahead.ancestors[static_cast<std::size_t>(mine.first_ancestor + i)],
                expected.ancestors[static_cast<std::size_t>(theirs.first_ancestor + i)]);
    }
    EXPECT_EQ(ahead.sampled_rows[row], static_cast<std::int32_t>(row));
    EXPECT_EQ(ahead.sampling[row].index, expected.sampling[same].index);
    if (row == 0 || row == 4) continue;
    EXPECT_EQ(ahead.tree_tokens[row], expected.tree_tokens[row]);
    EXPECT_EQ(ahead.tree_parents[row], expected.tree_parents[row]);
  }
  EXPECT_EQ(ahead.accept[0].nodes, 3);
  EXPECT_EQ(ahead.accept[0].first_slot, expected.accept[0].first_slot);
  EXPECT_EQ(ahead.accept[0].most_tokens, expected.accept[0].most_tokens);
  EXPECT_EQ(ahead.page_table, expected.page_table);
  EXPECT_EQ(search.root, 7);
  EXPECT_EQ(search.sampling.index, 9u);
}

TEST(PackedBatch, RoomForTreesTakesTheRowsThatRoundingAdds) {
  Scheduler scheduler(
      {.max_sequences = 2, .max_rows = 64, .page_size = 16, .num_pages = 8, .max_sampled = 64});
  scheduler.add(request(1, 4, 20));
  step(scheduler);
  const StepPlan plan = scheduler.plan({.width = 8, .depth = 2, .max_nodes = 16});
  PackedBatch batch;
  pack_for_device(plan, std::vector<std::int32_t>{0}, batch);
  EXPECT_EQ(batch.size(), 17);
  EXPECT_EQ(batch.places[0].rows, 16);
  pad(batch, 64, 64);
  EXPECT_EQ(batch.size(), 18);
  EXPECT_EQ(batch.places[0].rows, 17);
  EXPECT_EQ(batch.places[0].sampled_rows, 17);
}

TEST(Scheduler, PlansAheadWhatCannotTurnOutOtherwise) {
  const drafter::DraftShape shape{.width = 2, .depth = 3, .max_nodes = 6};
  Scheduler scheduler(
      {.max_sequences = 2, .max_rows = 32, .page_size = 16, .num_pages = 4, .max_sampled = 32});
  scheduler.add(request(1, 10, 9));
  scheduler.add(request(2, 12, 4));
  start(scheduler.plan(shape));
  // Both prompts are fed: both are in generation, with a token to come.
  ASSERT_TRUE(scheduler.can_plan_ahead());
  const StepPlan ahead = scheduler.plan(shape);
  EXPECT_EQ(text(ahead), "| 1:1* 2:1*");
  // A page has 16 slots; the first may have 11 tokens then, and 6 nodes behind them.
  EXPECT_EQ(ahead.generation[0].sequence->pages.size(), 2u);
  EXPECT_EQ(ahead.generation[0].max_depth, 7);
  EXPECT_EQ(ahead.generation[1].max_depth, 2);
  start(ahead);
  // The first of these steps gave a token each.
  for (const PlannedRows& planned : ahead.generation) {
    planned.sequence->tokens.push_back(7);
    planned.sequence->awaited -= 1;
  }
  // All four pages may be needed: 11 + 4 and 13 + 4 tokens.
  EXPECT_TRUE(scheduler.can_plan_ahead());
  // A third request would be admitted only if one were to end.
  scheduler.add(request(3, 4));
  EXPECT_TRUE(scheduler.can_plan_ahead());
  scheduler.remove(2);
  EXPECT_FALSE(scheduler.can_plan_ahead());
}

TEST(Scheduler, WaitsForTheStepUnderWayWhereTheNextHangsOnIt) {
  // A prompt in chunks.
  Scheduler prompt({.max_sequences = 2, .max_rows = 8, .page_size = 16, .num_pages = 4});
  prompt.add(request(1, 12));
  start(prompt.plan());
  EXPECT_FALSE(prompt.can_plan_ahead());
  // The step under way gives the last token.
  Scheduler last({.max_sequences = 2, .max_rows = 16, .page_size = 16, .num_pages = 4});
  last.add(request(1, 12, 1));
  last.add(request(2, 3, 8));
  start(last.plan());
  ASSERT_TRUE(last.can_plan_ahead());
  EXPECT_EQ(text(last.plan()), "| 2:1*");
  last.remove(2);
  EXPECT_FALSE(last.can_plan_ahead());
  // No page is left for the slot after 16, which somebody has to give up.
  Scheduler pages({.max_sequences = 2, .max_rows = 64, .page_size = 16, .num_pages = 3});
  pages.add(request(1, 16, 20));
  pages.add(request(2, 16, 20));
  start(pages.plan());
  EXPECT_FALSE(pages.can_plan_ahead());
}

TEST(Scheduler, DraftsTakeOnlyWhatIsLeft) {
  const drafter::DraftShape shape{.width = 4, .depth = 4, .max_nodes = 16};
  // Half of the rows that are left while prompts wait, all of them else.
  Scheduler rows(
      {.max_sequences = 2, .max_rows = 12, .page_size = 16, .num_pages = 8, .max_sampled = 12});
  rows.add(request(1, 4, 20));
  step(rows);
  rows.add(request(2, 30));
  const StepPlan beside = rows.plan(shape);
  EXPECT_EQ(beside.generation[0].draft.max_nodes, 5);
  EXPECT_EQ(beside.context[0].rows, 6);
  // One page: the tree gets its last slots.
  Scheduler pages(
      {.max_sequences = 1, .max_rows = 64, .page_size = 16, .num_pages = 1, .max_sampled = 64});
  pages.add(request(1, 12, 5));
  step(pages);
  const PlannedRows planned = pages.plan(shape).generation[0];
  EXPECT_EQ(planned.draft, (drafter::DraftShape{4, 4, 3}));
  EXPECT_EQ(planned.max_depth, 3);
  // One token is left, and that is sampled, not drafted.
  Scheduler last(
      {.max_sequences = 1, .max_rows = 64, .page_size = 16, .num_pages = 2, .max_sampled = 64});
  last.add(request(1, 12, 2));
  step(last);
  EXPECT_EQ(last.plan(shape).generation[0].draft, drafter::DraftShape{});
}

}  // namespace
}  // namespace paceline::runtime
