#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files/sha256.h"
#include "runtime/job/prompt_encoder.h"
#include "runtime/job/work.h"
#include "runtime/requests/request_parser.h"

namespace paceline::runtime {

/// A prompt and what answers it: the text that a drafter learns from is the answer.
struct Conversation {
  std::vector<std::int32_t> tokens;  ///< the prompt, then the answer
  std::int32_t prompt_tokens = 0;    ///< at least 1 and less than tokens.size()

  std::int32_t answer_tokens() const {
    return static_cast<std::int32_t>(tokens.size()) - prompt_tokens;
  }
  std::span<const std::int32_t> prompt() const {
    return std::span(tokens).first(static_cast<std::size_t>(prompt_tokens));
  }
  std::span<const std::int32_t> answer() const {
    return std::span(tokens).subspan(static_cast<std::size_t>(prompt_tokens));
  }
  bool operator==(const Conversation&) const = default;
};

/// The digest by which equal prompts are known.
Sha256::Digest prompt_digest(std::span<const std::int32_t> prompt);

/// {"prompt": [ids], "completion": [ids]}, without a line end.
std::string conversation_line(const Conversation& conversation);

/// One byte string for all, to be sent to other ranks, and back.
std::vector<std::byte> encode_conversations(std::span<const Conversation> conversations);
std::vector<Conversation> decode_conversations(std::span<const std::byte> bytes);

/// Reads the data of a training. A line is one JSON object:
/// - `messages` that end with the assistant's: a finished conversation, whose last message is the
///   answer and all before it the prompt;
/// - `prompt` (text or token ids) or `messages`, and `completion` (text or token ids): finished;
/// - any other request as `paceline generate` takes it: a prompt that is to be answered.
/// Of several equal prompts the first stands.
class ConversationReader {
 public:
  struct Limits {
    std::int64_t longest = 0;  ///< tokens of a conversation; what is longer is cut at its end
    std::vector<std::int32_t> eos_token_ids;  ///< an answer in `messages` ends behind the first
  };

  /// `rules` hold for prompts that are to be answered. The encoder must outlive the reader.
  ConversationReader(const PromptEncoder& encoder, RequestRules rules, Limits limits)
      : encoder_(encoder), rules_(std::move(rules)), limits_(std::move(limits)) {}

  /// Adds a file's lines. Throws ConfigError naming the file, the line and the field. If the file
  /// was cut short in its last line, that is an error too, unless `torn_end` allows it.
  void read(const std::filesystem::path& path, bool torn_end = false);

  std::vector<Conversation>& finished() { return finished_; }
  /// To be answered; index counts them from 0.
  std::vector<WorkItem>& prompts() { return prompts_; }
  std::int64_t duplicates() const { return duplicates_; }  ///< lines left out
  std::int64_t cut() const { return cut_; }                ///< conversations that were too long

 private:
  void add_line(std::string_view text, std::int64_t line);
  void add_finished(Request request, const std::vector<std::int32_t>& answer);
  void add_prompt(const Request& request);
  std::vector<std::int32_t> completion_ids(const Json& completion) const;
  std::vector<std::int32_t> last_message_ids(Request& request) const;
  bool is_new(std::span<const std::int32_t> prompt);

  const PromptEncoder& encoder_;
  RequestRules rules_;
  Limits limits_;
  std::vector<Conversation> finished_;
  std::vector<WorkItem> prompts_;
  std::set<Sha256::Digest> seen_;
  std::int64_t duplicates_ = 0;
  std::int64_t cut_ = 0;
};

}  // namespace paceline::runtime
