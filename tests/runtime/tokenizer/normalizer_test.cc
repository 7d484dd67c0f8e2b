#include "runtime/tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

std::string nfc(const std::string& text) {
  AttributedText attributed{text, std::vector<std::uint8_t>(text.size(), 1)};
  normalize_nfc(attributed);
  EXPECT_EQ(attributed.trusted.size(), attributed.bytes.size());
  return attributed.bytes;
}

TEST(NormalizeNfc, ComposesDecomposesAndOrders) {
  EXPECT_EQ(nfc("cafe\u0301 x"), "caf\u00e9 x");
  EXPECT_EQ(nfc("\u212b \u2126"), "\u00c5 \u03a9");  // singletons
  EXPECT_EQ(nfc("q\u0307\u0323"), "q\u0323\u0307");  // ordered by class
  EXPECT_EQ(nfc("e\u0323\u0302"), "\u1ec7");         // two marks, one character
  EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "\ud55c");    // Hangul L V T
  EXPECT_EQ(nfc("\uac00\u11a8"), "\uac01");          // Hangul LV T
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093c");          // composition exclusion
  EXPECT_EQ(nfc("\u0344"), "\u0308\u0301");          // marks stay without a base
  EXPECT_EQ(nfc("a\u0315\u0300\u05ae\u0300b"), "\u00e0\u05ae\u0300\u0315b");
  EXPECT_EQ(nfc("\u0b47\u0b3e"), "\u0b4b");                    // a starter joins a starter
  EXPECT_EQ(nfc("\u0b47\u0301\u0b3e"), "\u0b47\u0301\u0b3e");  // blocked
  EXPECT_EQ(nfc("e\u0301\u0301"), "\u00e9\u0301");
  EXPECT_EQ(nfc("plain \u00e9\u00df \u6708"), "plain \u00e9\u00df \u6708");
}

TEST(NormalizeNfc, OrdersAMillionMarksInTime) {
  std::string marks;  // a sort that swaps neighbours would take hours
  for (int i = 0; i < 250'000; ++i) marks += "\u0301\u0323";
  const std::string ordered = nfc("x" + marks);
  EXPECT_EQ(ordered.size(), marks.size() + 1);
  EXPECT_TRUE(ordered.starts_with("x\u0323\u0323"));
  EXPECT_TRUE(ordered.ends_with("\u0301\u0301"));
}

TEST(NormalizeNfc, ACharacterIsTrustedIfAllItsPartsAre) {
  AttributedText text{"ae\u0301b", {1, 1, 0, 0, 1}};
  normalize_nfc(text);
  EXPECT_EQ(text.bytes, "a\u00e9b");
  EXPECT_EQ(text.trusted, (std::vector<std::uint8_t>{1, 0, 0, 1}));
}

Normalizer parse(const std::string& json) {
  const Json document = parse_json(json, "test");
  return Normalizer::parse(JsonField(document, "tokenizer.json: normalizer"));
}

TEST(Normalizer, Llama2PrependsAndReplaces) {
  const Normalizer normalizer = parse(
      R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
          {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
  EXPECT_EQ(normalizer.apply("a  b "), "▁a▁▁b▁");
  EXPECT_EQ(normalizer.apply(""), "");
  AttributedText text{"a b", {1, 0, 1}};
  normalizer.apply(text);
  EXPECT_EQ(text.trusted, (std::vector<std::uint8_t>{1, 1, 1, 1, 0, 0, 0, 1}));
}

TEST(Normalizer, RefusesWhatItDoesNotKnow) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type": "Lowercase"})", "normalizer: type: found \"Lowercase\""},
      {R"({"type": "NFC", "strip": true})", "\"strip\" (true) is not supported"},
      {R"({"type": "Replace", "pattern": {"Regex": " +"}, "content": " "})", "\"Regex\""},
      {R"({"type": "Replace", "pattern": {"String": ""}, "content": " "})", "not empty"},
      {R"({"type": "Sequence", "normalizers": [{"type": "NFKC"}]})", "normalizers[0]: type"},
      {R"("NFC")", "expected an object"},
  };
  for (const auto& [json, reason] : cases) {
    try {
      parse(json);
      ADD_FAILURE() << "accepted: " << json;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  }
}

TEST(Normalizer, BoundsTheGrowthThatAFileCanAskFor) {
  std::string step = R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"})";
  std::string steps = step;
  for (int i = 0; i < 9; ++i) steps += "," + step;
  const Normalizer normalizer = parse(R"({"type": "Sequence", "normalizers": [)" + steps + "]}");
  EXPECT_THROW(normalizer.apply("aaaa"), RequestError);
}

}  // namespace
}  // namespace paceline::runtime
