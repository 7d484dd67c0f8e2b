#include "parallel/rank_state.h"

#include <gtest/gtest.h>

namespace paceline::parallel {
namespace {

TEST(PhaseNameTest, KeepsFifteenCharacters) {
  PhaseName name;
  EXPECT_EQ(name.load(), "");
  name.store("prefill");
  EXPECT_EQ(name.load(), "prefill");
  name.store("a phase with a long name");
  EXPECT_EQ(name.load(), "a phase with a ");
}

TEST(WaitTest, EndsWhenThePatienceIsOver) {
  RankState state;
  state.enter("load", std::chrono::milliseconds(10));
  Wait wait(state);
  while (wait.rest()) {
  }
  EXPECT_NE(wait.complaint("rank 3 on node1").find("s for rank 3 on node1 in load"),
            std::string::npos);
}

}  // namespace
}  // namespace paceline::parallel
