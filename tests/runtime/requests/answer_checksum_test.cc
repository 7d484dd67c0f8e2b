#include "runtime/requests/answer_checksum.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "runtime/requests/result_line.h"

namespace paceline::runtime {
namespace {

TEST(AnswerChecksum, IsTheHashOfTheDigestsInInputOrder) {
  AnswerChecksum checksum(3);
  checksum.set_answer(2, token_digest({7}));
  checksum.set_answer(0, token_digest({1, 2}));
  checksum.set_error(1);
  Sha256 expected;
  expected.update(token_digest({1, 2})).update(std::string(32, '\0')).update(token_digest({7}));
  EXPECT_EQ(checksum.finish_hex(), expected.finish_hex());
}

TEST(AnswerChecksum, CountsEveryRequestOnce) {
  AnswerChecksum checksum(2);
  checksum.set_error(0);
  EXPECT_THROW(checksum.finish_hex(), FatalError);
  EXPECT_THROW(checksum.set_error(0), FatalError);
  EXPECT_THROW(checksum.set_error(2), FatalError);
}

TEST(AnswerChecksum, OfNothing) { EXPECT_EQ(AnswerChecksum(0).finish_hex(), sha256_hex("")); }

}  // namespace
}  // namespace paceline::runtime
