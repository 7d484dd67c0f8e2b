#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "runtime/chat/chat_template.h"
#include "runtime/job/work.h"
#include "runtime/model/config.h"
#include "runtime/requests/request.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::runtime {

/// Turns requests into work: template, tokens, limits. Holds what a model directory has for that.
class PromptEncoder {
 public:
  struct Limits {
    std::int64_t vocab_size = 0;     // the model's
    std::int64_t max_positions = 0;  // the model's context
    std::int64_t cache_tokens = 0;   // tokens that the key/value cache of a replica holds
    std::uint64_t job_seed = 0;
    std::chrono::local_seconds now;  // what a template's strftime_now() sees
  };

  /// A directory without tokenizer.json serves prompts of token ids only. Throws ConfigError.
  PromptEncoder(const std::filesystem::path& model_dir, const Limits& limits);

  /// Null if the model directory has none.
  const Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }

  /// Throws RequestError naming the field: a prompt that is empty or does not fit, text or stop
  /// strings without a tokenizer, messages without a template or refused by it.
  WorkItem encode(const Request& request, std::int64_t index) const;

  /// What the template writes for the last of `messages` behind the prompt of those before it, as
  /// tokens: the answer, and the end of sequence. Throws RequestError of field "messages" if it
  /// does not begin with that prompt.
  std::vector<std::int32_t> encode_answer(const Json& messages) const;

  /// A prompt that a model goes on with as a user would: what the template writes before the
  /// content of a first user message. It ends with an end-of-sequence token or at `stop`.
  struct UserTurn {
    std::vector<std::int32_t> prompt;
    std::vector<std::string> stop;  ///< what the template writes behind it, if that is plain text
  };
  /// Throws RequestError of field "messages" if the model has no template, or one that does not
  /// write a message's content.
  UserTurn user_turn() const;

 private:
  std::vector<std::int32_t> prompt_ids(const Request& request) const;
  const Tokenizer& needed_tokenizer(const char* field) const;
  const ChatTemplate& needed_template() const;

  Limits limits_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
};

}  // namespace paceline::runtime
