#include "runtime/engine/control.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

Control example() {
  Control control;
  control.admit.push_back({.uid = 7,
                           .prompt = {1, 2, 3},
                           .max_new_tokens = 9,
                           .temperature = 0.5f,
                           .top_k = 40,
                           .top_p = 0.9f,
                           .seed = 1ULL << 63,
                           .ignore_eos = true,
                           .speculative = false});
  control.cancel = {5, 6};
  control.draft = drafter::DraftShape{.width = 8, .depth = 4, .max_nodes = 31};
  control.stop = true;
  return control;
}

TEST(Control, TravelsWhole) {
  const Control control = decode_control(encode_control(example()));
  ASSERT_EQ(control.admit.size(), 1u);
  EXPECT_EQ(control.admit[0].uid, 7u);
  EXPECT_EQ(control.admit[0].prompt, (std::vector<std::int32_t>{1, 2, 3}));
  EXPECT_EQ(control.admit[0].max_new_tokens, 9);
  EXPECT_EQ(control.admit[0].temperature, 0.5f);
  EXPECT_EQ(control.admit[0].top_k, 40);
  EXPECT_EQ(control.admit[0].top_p, 0.9f);
  EXPECT_EQ(control.admit[0].seed, 1ULL << 63);
  EXPECT_TRUE(control.admit[0].ignore_eos);
  EXPECT_FALSE(control.admit[0].speculative);
  EXPECT_EQ(control.cancel, (std::vector<std::uint64_t>{5, 6}));
  EXPECT_EQ(control.draft, (drafter::DraftShape{.width = 8, .depth = 4, .max_nodes = 31}));
  EXPECT_TRUE(control.stop);
}

TEST(Control, AShapeIsToldOnlyIfThereIsOne) {
  Control control;
  EXPECT_TRUE(control.empty());
  EXPECT_FALSE(decode_control(encode_control(control)).draft);
  control.draft = drafter::DraftShape{};  // nothing is to be drafted: that is told, too
  EXPECT_FALSE(control.empty());
  EXPECT_EQ(decode_control(encode_control(control)).draft, drafter::DraftShape{});
}

TEST(Control, EveryCutIsNoticed) {
  const std::vector<std::byte> bytes = encode_control(example());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(decode_control(std::span(bytes).first(length)), FatalError) << length;
  }
  std::vector<std::byte> longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THROW(decode_control(longer), FatalError);
}

}  // namespace
}  // namespace paceline::runtime
