#include "runtime/files/json.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

TEST(ParseJson, ReadsNestedValues) {
  EXPECT_EQ(parse_json(R"({"z": 1, "a": [2, {"b": null}]})", "test").dump(),
            R"({"a":[2,{"b":null}],"z":1})");
}

void expect_refused(std::string_view text, std::string_view reason) {
  try {
    parse_json(text, "place");
    FAIL() << "accepted: " << text;
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).rfind("place", 0), 0u) << error.what();
  }
}

TEST(ParseJson, RefusesWhatReadersDisagreeOn) {
  expect_refused(R"({"a": 1, "a": 2})", "\"a\" occurs twice");
  expect_refused(R"([{"a": {"b": 1, "b": 2}}])", "\"b\" occurs twice");
  expect_refused("{\"a\": \"\xff\"}", "not valid JSON at byte");
  expect_refused("[1, 2", "not valid JSON");
}

TEST(ParseJson, TheSameKeyMayOccurInTwoObjects) {
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": {"a": 2}}])", "test"));
}

TEST(ParseJson, BoundsDepthAndSize) {
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "test"));
  expect_refused(std::string(65, '[') + std::string(65, ']'), "deeper than 64");
  expect_refused(std::string(2'000'000, '['), "deeper than 64");
  EXPECT_THROW(parse_json("[1,2,3]", "test", {.max_bytes = 6}), ConfigError);
}

TEST(ParseJson, RefusesNumbersThatNoDoubleHolds) {
  expect_refused("[1e999]", "not valid JSON at byte");
  EXPECT_EQ(parse_json("1e308", "test").get<double>(), 1e308);
}

TEST(ParseJson, MessagesStayShort) {
  try {
    parse_json("\"" + std::string(100'000, 'a'), "place");
    FAIL() << "accepted an open string";
  } catch (const ConfigError& error) {
    EXPECT_LT(std::string(error.what()).size(), 400u);
  }
}

// A parser that looks back over the list at each object would need 10^11 steps here.
TEST(ParseJson, ALongListOfObjectsTakesLinearTime) {
  constexpr std::size_t kObjects = 500'000;
  std::string text = "[{}";
  for (std::size_t i = 1; i < kObjects; ++i) text += ",{}";
  EXPECT_EQ(parse_json(text + "]", "test").size(), kObjects);
}

}  // namespace
}  // namespace paceline::runtime
