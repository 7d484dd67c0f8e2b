#include "kernels/cpu/isa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace paceline::kernels::cpu {
namespace {

using ::testing::HasSubstr;

TEST(Isa, EverySupportedOneCanBeNamed) {
  ASSERT_FALSE(supported_isas().empty());
  for (Isa isa : supported_isas()) EXPECT_EQ(select_isa(isa_name(isa)), isa);
}

TEST(Isa, TheBestIsTheDefaultAndAvx2TheLast) {
  EXPECT_EQ(select_isa(""), supported_isas().front());
  EXPECT_EQ(supported_isas().back(), Isa::kAvx2);
}

TEST(Isa, AnUnknownNameIsRefusedWithTheKnownOnes) {
  try {
    select_isa("sse9");
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("sse9"));
    EXPECT_THAT(error.what(), HasSubstr("avx2"));
  }
}

}  // namespace
}  // namespace paceline::kernels::cpu
