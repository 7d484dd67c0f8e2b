#include "runtime/training/draft_vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DraftVocabularyTest : public testing::Test {
 protected:
  // Of the answers: 7 three times, 3 and 5 twice, 2 once. The prompts' 9 does not count.
  const Conversation a_{{9, 9, 9, 7, 5, 7, 3}, 3};
  const Conversation b_{{9, 9, 7, 5, 3, 2}, 2};
  const std::vector<const Conversation*> texts_{&a_, &b_};
  const std::vector<std::int32_t> none_;
};

TEST_F(DraftVocabularyTest, KeepsTheMostFrequentTokensOfTheAnswers) {
  EXPECT_THAT(choose_draft_vocabulary(texts_, 1, 16, none_), ElementsAre(7));
  EXPECT_THAT(choose_draft_vocabulary(texts_, 2, 16, none_), ElementsAre(3, 7));  // ties: lower id
  EXPECT_THAT(choose_draft_vocabulary(texts_, 4, 16, none_), ElementsAre(2, 3, 5, 7));
  EXPECT_THAT(choose_draft_vocabulary(texts_, 6, 16, none_), ElementsAre(0, 1, 2, 3, 5, 7));
}

TEST_F(DraftVocabularyTest, AlwaysHoldsWhatItMust) {
  EXPECT_THAT(choose_draft_vocabulary(texts_, 3, 16, std::vector{15, 7, 15, 99}),
              ElementsAre(3, 7, 15));
  EXPECT_THAT(choose_draft_vocabulary(texts_, 1, 16, std::vector{15, 1}), ElementsAre(1, 15));
}

TEST_F(DraftVocabularyTest, IsEmptyForAllTokens) {
  EXPECT_THAT(choose_draft_vocabulary(texts_, 0, 16, none_), IsEmpty());
  EXPECT_THAT(choose_draft_vocabulary(texts_, 16, 16, none_), IsEmpty());
}

TEST_F(DraftVocabularyTest, TellsHowMuchItCovers) {
  EXPECT_EQ(covered_share(texts_, std::vector{3, 7}), 5.0 / 8.0);
  EXPECT_EQ(covered_share(texts_, none_), 1.0);
}

}  // namespace
}  // namespace paceline::runtime
