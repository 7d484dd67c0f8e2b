#include "runtime/tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace paceline::runtime {
namespace {

TEST(Utf8, DecodesWhatItAppends) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Step step = decode_utf8(text);
    ASSERT_TRUE(step.valid);
    ASSERT_EQ(step.code_point, c);
    ASSERT_EQ(step.length, text.size());
    ASSERT_EQ(decode_utf8_before(text, text.size()).code_point, c);
  }
}

// The examples of the Unicode Standard, tables 3-8 to 3-11, and the ends of the ranges.
TEST(Utf8, ReplacesEachMaximalBrokenPart) {
  const std::pair<std::string, int> cases[] = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82", 8},  // overlong: no byte begins a character
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF", 8},  // surrogates
      {"\xF4\x91\x92\x93\xFF\x80\xBF", 7},      // beyond U+10FFFF
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF", 4},  // characters cut short
      {"\xF0\x9F\x98", 1},
      {"\xE4\xB8", 1},
      {"\x80", 1},
      {"\xC3", 1},
  };
  for (const auto& [bytes, replacements] : cases) {
    std::string expected;
    for (int i = 0; i < replacements; ++i) expected += "\uFFFD";
    EXPECT_EQ(replace_broken_utf8("a" + bytes + "b"), "a" + expected + "b");
    EXPECT_FALSE(is_valid_utf8(bytes));
  }
  EXPECT_EQ(replace_broken_utf8(std::string_view("a\0\u00e9", 4)),
            std::string_view("a\0\u00e9", 4));
}

TEST(Utf8Assembler, HoldsBackOnlyTheBeginningOfACharacter) {
  Utf8Assembler assembler;
  EXPECT_EQ(assembler.push("a\xF0\x9F"), "a");
  EXPECT_EQ(assembler.push("\x98"), "");
  EXPECT_EQ(assembler.push("\x80!"), "\U0001F600!");
  EXPECT_EQ(assembler.push("\xE4\xB8"), "");
  EXPECT_EQ(assembler.push("z"), "\uFFFDz");
  EXPECT_EQ(assembler.push("\xC3"), "");
  EXPECT_EQ(assembler.finish(), "\uFFFD");
  EXPECT_EQ(assembler.finish(), "");
}

TEST(Utf8Assembler, GivesTheSameWhereverTheBytesAreCut) {
  const std::string bytes = "\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41\xF0\x9F\x98\x80\xED\xA0\x80\xC3";
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    Utf8Assembler assembler;
    std::string text = assembler.push(bytes.substr(0, cut));
    text += assembler.push(bytes.substr(cut));
    text += assembler.finish();
    EXPECT_EQ(text, replace_broken_utf8(bytes)) << cut;
  }
}

TEST(Utf8, KnowsWhiteSpace) {
  int count = 0;
  for (char32_t c = 0; c < 0x110000; ++c) count += is_white_space(c);
  EXPECT_EQ(count, 25);
  EXPECT_TRUE(is_white_space(0x3000));
  EXPECT_FALSE(is_white_space(0x180E));  // no longer since Unicode 6.3
  EXPECT_FALSE(is_white_space(0x200B));
}

}  // namespace
}  // namespace paceline::runtime
