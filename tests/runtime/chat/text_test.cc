#include "runtime/chat/text.h"

#include <gtest/gtest.h>

namespace paceline::runtime::chat {
namespace {

Text mixed() {  // "ab" trusted, "cd" untrusted, "ef" trusted
  Text text("ab", true);
  text.append("cd", false);
  text.append("ef", true);
  return text;
}

TEST(ChatText, JoinsRunsOfOneProvenance) {
  Text text("a", true);
  text.append("", false);
  text.append("b", true);
  EXPECT_EQ(text.segments(), (std::vector<TextSegment>{{"ab", true}}));
  EXPECT_TRUE(Text("", true).segments().empty());
}

TEST(ChatText, SlicesKeepProvenance) {
  EXPECT_EQ(mixed().slice(1, 5).segments(),
            (std::vector<TextSegment>{{"b", true}, {"cd", false}, {"e", true}}));
  EXPECT_EQ(mixed().slice(2, 4).segments(), (std::vector<TextSegment>{{"cd", false}}));
  EXPECT_TRUE(mixed().slice(6, 6).empty());
}

TEST(ChatText, CanBeAppendedToItself) {
  Text text = mixed();
  text.append(text);
  EXPECT_EQ(text.bytes(), "abcdefabcdef");
  EXPECT_EQ(text.segments()[2], (TextSegment{"efab", true}));
}

TEST(ChatText, CodePointsOfBrokenUtf8AreBytes) {
  EXPECT_EQ(code_point_offsets("a\xC3\xA9"), (std::vector<std::size_t>{0, 1, 3}));
  EXPECT_EQ(code_point_offsets("\xC3"), (std::vector<std::size_t>{0, 1}));
  EXPECT_EQ(code_point_offsets("\xE2\x82z"), (std::vector<std::size_t>{0, 1, 2, 3}));
  EXPECT_EQ(code_point_at("\xFF", 0), char32_t{0xDCFF});
  EXPECT_EQ(code_point_at("\xF0\x9F\x9A\x89", 0), char32_t{0x1F689});
}

TEST(ChatText, StripsUnicodeWhiteSpaceFromBothEnds) {
  const Text text("\xE3\x80\x80 a\xC2\xA0", true);  // U+3000, space, a, U+00A0
  EXPECT_EQ(strip(text, nullptr, Side::kBoth).bytes(), "a");
  EXPECT_EQ(strip(text, nullptr, Side::kLeft).bytes(), "a\xC2\xA0");
  const Text accents("\xC3\xA9x\xC3\xA9", true);
  const Text e_acute("\xC3\xA9", true);
  EXPECT_EQ(strip(accents, &e_acute, Side::kRight).bytes(), "\xC3\xA9x");
  EXPECT_EQ(strip(Text("\xA9\xA9", false), nullptr, Side::kBoth).bytes(), "\xA9\xA9");
}

}  // namespace
}  // namespace paceline::runtime::chat
