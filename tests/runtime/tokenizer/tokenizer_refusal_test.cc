// What a tokenizer.json must not contain: each is refused by the key that is wrong.
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::runtime {
namespace {

struct Refusal {
  const char* pointer;  ///< where in the document (RFC 6901)
  const char* value;    ///< what is put there, JSON
  const char* reason;   ///< part of the message
};

void expect_refused(const char* family, const std::vector<Refusal>& refusals) {
  const Json good = read_json(std::string(PACELINE_TEST_DATA "/tokenizer/") + family + ".json");
  ASSERT_NO_THROW(Tokenizer::parse(good, "dir/tokenizer.json"));
  for (const Refusal& refusal : refusals) {
    Json bad = good;
    bad[Json::json_pointer(refusal.pointer)] = Json::parse(refusal.value);
    try {
      Tokenizer::parse(bad, "dir/tokenizer.json");
      ADD_FAILURE() << "accepted: " << refusal.pointer << " = " << refusal.value;
    } catch (const ConfigError& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.rfind("dir/tokenizer.json: ", 0), 0u) << message;
      EXPECT_NE(message.find(refusal.reason), std::string::npos) << message;
    }
  }
}

TEST(TokenizerRefusal, NamesTheKey) {
  expect_refused(
      "qwen2",
      {
          {"/version", R"("2.0")", "version: found \"2.0\""},
          {"/truncation", R"({"max_length": 5})", "truncation: found an object, expected null"},
          {"/padding", R"({"strategy": "Fixed"})", "padding: found an object"},
          {"/chat", "1", "the key \"chat\" (1) is not supported"},
          {"/normalizer", R"({"type": "NFKC"})", "normalizer: type: found \"NFKC\""},
          {"/pre_tokenizer", R"({"type": "Whitespace"})", "pre_tokenizer: type"},
          {"/pre_tokenizer/pretokenizers/0/behavior", R"("Contiguous")", "behavior"},
          {"/pre_tokenizer/pretokenizers/0/pattern", R"({"Regex": "\\w+"})", "this escape"},
          {"/pre_tokenizer/pretokenizers/0/pattern", R"({"String": ""})", "not empty"},
          {"/pre_tokenizer/pretokenizers/0", R"({"type": "ByteLevel", "add_prefix_space": false})",
           "once each"},
          {"/decoder", R"({"type": "WordPiece"})", "decoder: type: found \"WordPiece\""},
          {"/decoder", R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                           {"type": "ByteFallback"}]})",
           "nothing but Strip after Fuse"},
          {"/decoder", R"({"type": "Strip", "content": " ", "start": 0, "stop": 1})",
           "only the start can be stripped"},
          {"/decoder", R"({"type": "Strip", "content": "ab", "start": 0, "stop": 0})",
           "expected one character"},
          {"/post_processor", R"({"type": "BertProcessing"})", "post_processor: type"},
          {"/model/type", R"("Unigram")", "model: type: found \"Unigram\", expected BPE"},
          {"/model/dropout", "0.1", "dropout: found 0.1"},
          {"/model/continuing_subword_prefix", R"("##")", "continuing_subword_prefix"},
          {"/model/end_of_word_suffix", R"("</w>")", "end_of_word_suffix"},
          {"/model/unk_token", R"("<none>")", "unk_token: found \"<none>\""},
          {"/model/vocab/a", "-1", "vocab: a: found -1"},
          {"/model/vocab/a", "1.5", "vocab: a: found 1.5"},
          {"/model/vocab/a", "4000000000", "vocab: a: found 4000000000"},
          {"/model/vocab/a", "0", "an id that no other token has"},
          {"/model/merges/3", R"("a b c")", "merges[3]: found \"a b c\""},
          {"/model/merges/3", R"("ab")", "merges[3]"},
          {"/model/merges/3", R"(["a"])", "merges[3]"},
          {"/model/merges/3", R"("\u4e00 a")", "is not a token of the vocabulary"},
          {"/model/merges", "{}", "merges: found an object"},
          {"/model/vocab", "[]", "vocab: found a list"},
          {"/model/fuse_unk", "1", "fuse_unk: found 1, expected true or false"},
          {"/added_tokens/1/id", "5", "added_tokens[1]: id: found 5"},
          {"/added_tokens/1/content", R"("")", "content"},
          {"/added_tokens/1/special", "null", "special: found null"},
      });
}

TEST(TokenizerRefusal, NamesTheKeyOfSentencePieceParts) {
  expect_refused(
      "llama2",
      {
          {"/post_processor/single", "[]", "the sequence A once"},
          {"/post_processor/single/1/Sequence/id", R"("B")", "the sequence A once"},
          {"/post_processor/special_tokens", "{}", "the key \"<s>\" is missing"},
          {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "__"})", "one character"},
          {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "x"})",
           "always, first or never"},
          {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_",
                                 "add_prefix_space": false, "prepend_scheme": "first"})",
           "add_prefix_space"},
      });
}

TEST(TokenizerRefusal, NamesAFileThatIsMissing) {
  try {
    Tokenizer::load("/nonexistent");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/tokenizer.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace paceline::runtime
