#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "runtime/files/json.h"
#include "runtime/job/prompt_encoder.h"
#include "tests/runtime/model/fixture_model.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {

/// The tiny model llama_gqa (160 tokens, 512 positions, end of sequence 159) with a tokenizer and a
/// chat template: token 0 begins a message, 159 ends it, those between are one character each,
/// first of all the 96 that ASCII text is made of.
class ChatModel {
 public:
  static constexpr std::int32_t kBegin = 0, kEnd = 159;

  ChatModel() {
    for (const char* name : {"config.json", "generation_config.json", "model.safetensors"}) {
      std::filesystem::copy(fixture_dir("llama_gqa") / name, directory_.path() / name);
    }
    directory_.write("tokenizer.json", tokenizer().dump());
    directory_.write("chat_template.jinja",
                     "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
                     "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
                     "{{ '<|im_start|>assistant\n' }}{% endif %}");
    encoder_ = std::make_unique<PromptEncoder>(path(), PromptEncoder::Limits{.vocab_size = 160,
                                                                             .max_positions = 512,
                                                                             .cache_tokens = 512,
                                                                             .job_seed = 0,
                                                                             .now = {}});
  }

  const std::filesystem::path& path() const { return directory_.path(); }
  const PromptEncoder& encoder() const { return *encoder_; }

  std::vector<std::int32_t> ids(const std::string& text) const {
    const TextSegment segment{text, /*trusted=*/true};
    return encoder_->tokenizer()->encode(std::span(&segment, 1), /*add_special_tokens=*/false);
  }

 private:
  static Json tokenizer() {
    Json vocab = {{"<|im_start|>", kBegin}, {"<|im_end|>", kEnd}};
    std::int32_t id = 1;
    const auto add = [&](int byte) { vocab[byte_letter(byte)] = id++; };
    add('\n');
    for (int byte = ' '; byte < 127; ++byte) add(byte);
    // U+FFFD stands for bytes that are no character; the rest fills the vocabulary.
    for (const int byte : {0xEF, 0xBF, 0xBD}) add(byte);
    for (int byte = 0xC0; id < kEnd; ++byte) {
      if (byte != 0xEF) add(byte <= 0xFF ? byte : 0x80 + byte - 0x100);
    }
    const auto special = [](const char* text, std::int32_t at) {
      return Json{{"id", at},        {"content", text}, {"single_word", false},
                  {"lstrip", false}, {"rstrip", false}, {"normalized", false},
                  {"special", true}};
    };
    const Json byte_level = {{"type", "ByteLevel"},
                             {"add_prefix_space", false},
                             {"trim_offsets", true},
                             {"use_regex", true}};
    return {{"version", "1.0"},
            {"added_tokens",
             Json::array({special("<|im_start|>", kBegin), special("<|im_end|>", kEnd)})},
            {"pre_tokenizer", byte_level},
            {"decoder", byte_level},
            {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
  }

  /// The letter that GPT-2's byte-level BPE writes for a byte.
  static std::string byte_letter(int byte);

  TemporaryDirectory directory_;
  std::unique_ptr<PromptEncoder> encoder_;
};

inline std::string ChatModel::byte_letter(int byte) {
  // Printable ones stand for themselves, the others for U+0100 and on, in their order.
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 0x100;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

}  // namespace paceline::runtime
