#include "runtime/tokenizer/regex.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/core/error.h"
#include "runtime/tokenizer/regex_dialect.h"

namespace paceline::runtime {
namespace {

std::vector<std::string> matches(std::string_view oniguruma, const std::string& text) {
  const Regex regex(translate_oniguruma(oniguruma, "test"), "test");
  std::vector<std::string> found;
  regex.for_each_match(text, [&](std::size_t begin, std::size_t end) {
    found.push_back(text.substr(begin, end - begin));
  });
  return found;
}

using Strings = std::vector<std::string>;

TEST(Regex, SplitsAsTheGpt2PatternDoes) {
  EXPECT_EQ(matches(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                    "it's  12 \u00e9t\u00e9!?\n"),
            (Strings{"it", "'s", " ", " 12", " \u00e9t\u00e9", "!?", "\n"}));
}

TEST(Regex, FoldsCaseOfContractions) {
  EXPECT_EQ(matches("(?i:'s|'ll)", "'S 'lL '\u017f 'x"), (Strings{"'S", "'lL", "'\u017f"}));
}

TEST(Regex, MeansUnicodeWhiteSpace) {
  EXPECT_EQ(matches(R"(\s+)", "a\u3000\u0085b\u180e"), (Strings{"\u3000\u0085"}));
  EXPECT_EQ(matches(R"(\S+)", "a\u3000b\u180e"), (Strings{"a", "b\u180e"}));
}

TEST(Regex, KnowsLettersAndNumbersOfUnicode16) {
  EXPECT_EQ(matches(R"(\p{L}+|\p{N})", "\u1c89\U00031350.\U000116d0"),
            (Strings{"\u1c89\U00031350", "\U000116d0"}));
  EXPECT_EQ(matches(R"([^\p{L}]|\P{N})", "\u1c89\U000116d0"), (Strings{"\u1c89", "\U000116d0"}));
}

TEST(Regex, ReadsTheConstructsOfTheDialect) {
  EXPECT_EQ(matches(R"([a-c\-]{2,3}|\.(?=x)|d(?:ef)?|.)", "ab-c.x.def\nd"),
            (Strings{"ab-", "c", ".", "x", ".", "def", "d"}));
  EXPECT_EQ(matches(R"(a+?|b++)", "aabb"), (Strings{"a", "a", "bb"}));
}

TEST(Regex, RefusesWhatDiffersBetweenTheDialects) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "an empty pattern"},
      {"^a", "an anchor"},
      {"a$", "an anchor"},
      {"(a+)+", "this repetition"},
      {"(?:a|b)*", "this repetition"},
      {"(?<=a)b", "this kind of group"},
      {"(?i)a", "this kind of group"},
      {"(?i:stra)", "a ligature's letters"},
      {"(?i:\u00e9)", "anything but ASCII letters"},
      {"[a[b]]", "a class inside a class"},
      {"[a&&b]", "a class inside a class"},
      {"[]a]", "an empty class"},
      {"[a", "a class without its end"},
      {"[\\s-z]", "a range that starts with a set"},
      {"[z-a]", "this range"},
      {"[^\\S]", "this escape"},
      {"\\w+", "this escape"},
      {"\\d", "this escape"},
      {"\\Ka", "this escape"},
      {"a\\", "a backslash at the end"},
      {"\\p{Greek}", "not a general category"},
      {"\\pL", "a property without braces"},
      {"\\p", "a property without braces"},
      {"a{1,3}+", "this repetition"},
      {"a{,3}", "this repetition"},
      {"a{3,1}", "these bounds"},
      {"a{2000}", "a repetition this large"},
      {"a{x}", "this repetition"},
      {"a**", "this repetition"},
      {"(a", "a group without its end"},
      {"a)", "without its beginning"},
      {"*", "without a backslash"},
  };
  for (const auto& [pattern, reason] : cases) {
    try {
      translate_oniguruma(pattern, "tokenizer.json: pre_tokenizer");
      ADD_FAILURE() << "accepted: " << pattern;
    } catch (const ConfigError& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.rfind("tokenizer.json: pre_tokenizer", 0), 0u) << message;
      EXPECT_NE(message.find(reason), std::string::npos) << message;
    }
  }
  EXPECT_THROW(matches("a*", "b"), ConfigError);  // can match nothing
}

TEST(Regex, EndsAPatternThatTakesTooManySteps) {
  std::string pattern;
  for (int i = 0; i < 60; ++i) pattern += "(?:a|b)?a*";
  EXPECT_THROW(matches(pattern + "[cd]e", std::string(60, 'a') + "fe"), RequestError);
}

}  // namespace
}  // namespace paceline::runtime
