#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/chat/budget.h"
#include "runtime/files/json.h"
#include "runtime/tokenizer/text_segment.h"

namespace paceline::runtime {

namespace chat {
struct Program;
}

/// The special tokens that a chat template may name; what a model lacks is undefined there.
struct ChatTokens {
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<std::string> unk_token;
  std::optional<std::string> pad_token;
};

/// A model's chat template: turns a conversation into a prompt.
///
/// It speaks the part of Jinja (with trim_blocks and lstrip_blocks) that the templates of the
/// Llama, Mistral, Qwen, SmolLM and Vicuna families use: output, if, for (with if and else), set,
/// macro, break, continue, generation, raw and comments; Python's operators, slices and inline if;
/// the filters, tests and methods listed in filters.cc, tests.cc and methods.cc; namespace(),
/// range(), dict(), raise_exception() and strftime_now(). Anything else is refused by name when
/// the template is compiled. Integers have 64 bits, and case changes in ASCII only; a template
/// that needs more fails the request. Objects of a request have sorted keys.
///
/// It has no tools: `tools` and `documents` are none, as transformers passes them without any.
///
/// For bos_token "<s>" and the template
///   {{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}
/// the conversation [{"role": "user", "content": "<s>"}] renders to the segments
///   "<s>[" trusted, "user" untrusted, "] " trusted, "<s>" untrusted.
///
/// Immutable once compiled, so threads may render at once.
class ChatTemplate {
 public:
  /// Compiles a template's text. `where` names it in messages, e.g. "model/chat_template.jinja".
  /// Throws ConfigError naming the line and what is not supported.
  static ChatTemplate compile(std::string_view source, std::string_view where,
                              ChatTokens tokens = {});

  /// The template of a Hugging Face model directory: chat_template.jinja if there is one, else
  /// "chat_template" of tokenizer_config.json (a string, or a list of {"name", "template"} of
  /// which "default" is taken). Special tokens come from tokenizer_config.json (a string, or an
  /// object with "content"). Empty if the model has no template. Throws ConfigError.
  static std::optional<ChatTemplate> load(const std::filesystem::path& model_dir);

  /// The prompt of a conversation: adjacent pieces of one provenance are one segment, none is
  /// empty. `messages` is an array of objects, each with "role" and "content" (a string; parts of
  /// type text are joined by the caller) and whatever else the template looks at. `now` is the
  /// local time that strftime_now() formats; pass one time to all the ranks of a job.
  /// Throws RequestError of field "messages": with the template's own message if it refuses the
  /// conversation, else with the template's line.
  std::vector<TextSegment> render(const Json& messages, bool add_generation_prompt,
                                  std::chrono::local_seconds now,
                                  const ChatLimits& limits = {}) const;

 private:
  ChatTemplate(std::shared_ptr<const chat::Program> program, ChatTokens tokens)
      : program_(std::move(program)), tokens_(std::move(tokens)) {}

  std::shared_ptr<const chat::Program> program_;
  ChatTokens tokens_;
};

/// The text of all segments, as a tokenizer that ignores provenance would see it.
std::string join_segments(const std::vector<TextSegment>& segments);

}  // namespace paceline::runtime
