// Equality with the `tokenizers` package on the fixtures of tools/make_tokenizer_fixture.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {
namespace {

using Ids = std::vector<std::int32_t>;
const std::filesystem::path kData = PACELINE_TEST_DATA "/tokenizer";
const std::filesystem::path kModel = PACELINE_SOURCE_DIR "/models/SmolLM2-135M-Instruct";

/// What `tokenizers` made of the fixture's texts with one tokenizer.
struct Expected {
  explicit Expected(const std::string& name)
      : content(read_json(kData / (name + "_expected.json"))),
        strings(read_json(kData / "strings.json")) {}

  Tokenizer tokenizer() const {
    if (content.at("tokenizer") == "") return Tokenizer::load(kModel);
    Json document = read_json(kData / content.at("tokenizer").get<std::string>());
    for (const auto& [key, value] : content.at("changes").items()) document[key] = value;
    return Tokenizer::parse(document, "fixture");
  }

  Json content, strings;
};

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens) {
  StreamDecoder decoder(tokenizer, skip_special_tokens);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string piece = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(piece));
    text += piece;
  }
  const std::string rest = decoder.finish();
  EXPECT_TRUE(is_valid_utf8(rest));
  return text + rest;
}

class TokenizerFixture : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) == "smollm2_full" && !exists(kModel / "tokenizer.json")) {
      GTEST_SKIP() << "needs the imported model: run tools/import_gguf.py (or ./quickstart)";
    }
  }
};

TEST_P(TokenizerFixture, EncodesTextAsTokenizersDoes) {
  const Expected expected(GetParam());
  const Tokenizer tokenizer = expected.tokenizer();
  const Json& plain = expected.content.at("plain");
  const std::size_t step = plain.size() == expected.strings.size() ? 1 : 5;
  ASSERT_EQ(plain.size(), (expected.strings.size() + step - 1) / step);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const auto text = expected.strings[i * step].get<std::string>();
    EXPECT_EQ(tokenizer.encode_text(text), plain[i].get<Ids>()) << Json(text).dump();
  }
}

TEST_P(TokenizerFixture, DecodesWholeAndStreamedAlike) {
  const Expected expected(GetParam());
  const Tokenizer tokenizer = expected.tokenizer();
  const Json& plain = expected.content.at("plain");
  const Json& decoded = expected.content.at("decoded");
  const std::size_t step = plain.size() == expected.strings.size() ? 1 : 5;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const auto ids = plain[i].get<Ids>();
    const auto differs = decoded.find(std::to_string(i));
    const Json& text = differs == decoded.end() ? expected.strings[i * step] : *differs;
    EXPECT_EQ(tokenizer.decode(ids, false), text.get<std::string>());
    EXPECT_EQ(stream(tokenizer, ids, false), text.get<std::string>());
  }
}

TEST_P(TokenizerFixture, RecognizesAddedTokensInTrustedText) {
  const Expected expected(GetParam());
  const Tokenizer tokenizer = expected.tokenizer();
  for (const Json& item : expected.content.at("special")) {
    const auto text = item.at("text").get<std::string>();
    const auto ids = item.at("ids").get<Ids>();
    const TextSegment segment{text, true};
    EXPECT_EQ(tokenizer.encode({&segment, 1}, true), ids) << Json(text).dump();
    EXPECT_EQ(tokenizer.decode(ids, false), item.at("decoded").get<std::string>());
    if (!item.contains("skipped")) continue;  // see the script
    EXPECT_EQ(tokenizer.decode(ids, true), item.at("skipped").get<std::string>());
    EXPECT_EQ(stream(tokenizer, ids, true), item.at("skipped").get<std::string>());
  }
}

TEST_P(TokenizerFixture, DecodesArbitraryIdsWithBrokenUtf8AndMissingIds) {
  const Expected expected(GetParam());
  const Tokenizer tokenizer = expected.tokenizer();
  for (const Json& item : expected.content.at("arbitrary")) {
    const auto ids = item.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.decode(ids, false), item.at("decoded").get<std::string>()) << item.dump();
    EXPECT_EQ(stream(tokenizer, ids, false), item.at("decoded").get<std::string>());
    if (!item.contains("skipped")) continue;
    EXPECT_EQ(tokenizer.decode(ids, true), item.at("skipped").get<std::string>()) << item.dump();
    EXPECT_EQ(stream(tokenizer, ids, true), item.at("skipped").get<std::string>());
  }
}

struct CodePoints {
  char32_t first, end, step;
};

// As block_starts() of the script: every code point that the patterns' classes tell apart.
constexpr CodePoints kCodePoints[] = {
    {0, 0x3400, 1},        {0xa000, 0xac00, 1},   {0xd7a0, 0xd800, 1},    {0xf900, 0x14800, 1},
    {0x16000, 0x18d80, 1}, {0x1aff0, 0x20000, 1}, {0x20000, 0x40000, 61}, {0xe0000, 0xe0200, 1}};

class FamilyFixture : public TokenizerFixture {};

TEST_P(FamilyFixture, ClassifiesEveryCodePointAsTokenizersDoes) {
  const Expected expected(GetParam());
  const Json& hashes = expected.content.at("code_points");
  const Tokenizer tokenizer = expected.tokenizer();
  std::size_t block = 0;
  for (const CodePoints& range : kCodePoints) {
    for (char32_t begin = range.first; begin < range.end; begin += 256 * range.step) {
      std::uint32_t hash = 0x811c9dc5;
      const char32_t end = std::min<char32_t>(range.end, begin + 256 * range.step);
      for (char32_t c = begin; c < end; c += range.step) {
        std::string x;
        append_utf8(x, c);
        const std::string text = "a" + x + "b " + x + "1" + x + x + " '" + x;
        for (const std::int32_t id : tokenizer.encode_text(text)) {
          hash = (hash ^ static_cast<std::uint32_t>(id)) * 0x01000193u;
        }
      }
      EXPECT_EQ(hash, hashes.at(block++).get<std::uint32_t>())
          << "code points from " << std::hex << static_cast<std::uint32_t>(begin);
    }
  }
  EXPECT_EQ(block, hashes.size());
}

std::string name_of(const testing::TestParamInfo<const char*>& instance) { return instance.param; }

INSTANTIATE_TEST_SUITE_P(Families, TokenizerFixture,
                         testing::Values("smollm2", "smollm2_full", "gpt2", "llama3", "qwen2",
                                         "llama2"),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Variants, TokenizerFixture,
                         testing::Values("llama2_metaspace", "llama2_metaspace_split",
                                         "llama2_unknown", "llama2_unknown_fused",
                                         "llama2_normalized_special", "gpt2_prefix_space",
                                         "gpt2_removed", "qwen2_added"),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Families, FamilyFixture,
                         testing::Values("smollm2", "smollm2_full", "gpt2", "llama3", "qwen2",
                                         "llama2"),
                         name_of);

}  // namespace
}  // namespace paceline::runtime
