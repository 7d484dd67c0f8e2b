#include "runtime/training/conversations.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "runtime/engine/wire.h"
#include "runtime/files/mapped_file.h"

namespace paceline::runtime {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

void append_ids(std::span<const std::int32_t> ids, std::string& text) {
  text += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    fmt::format_to(std::back_inserter(text), "{}{}", i > 0 ? "," : "", ids[i]);
  }
  text += ']';
}

}  // namespace

Sha256::Digest prompt_digest(std::span<const std::int32_t> prompt) {
  return Sha256().update(std::as_bytes(prompt)).finish();
}

std::string conversation_line(const Conversation& conversation) {
  std::string text = R"({"prompt":)";
  append_ids(conversation.prompt(), text);
  text += R"(,"completion":)";
  append_ids(conversation.answer(), text);
  return text + "}";
}

std::vector<std::byte> encode_conversations(std::span<const Conversation> conversations) {
  WireWriter writer;
  writer.value(static_cast<std::uint64_t>(conversations.size()));
  for (const Conversation& conversation : conversations) {
    writer.value(conversation.prompt_tokens);
    writer.list(conversation.tokens);
  }
  return writer.take();
}

std::vector<Conversation> decode_conversations(std::span<const std::byte> bytes) {
  WireReader reader(bytes);
  const auto count = reader.value<std::uint64_t>();
  std::vector<Conversation> conversations;
  for (std::uint64_t i = 0; i < count; ++i) {
    Conversation& conversation = conversations.emplace_back();
    conversation.prompt_tokens = reader.value<std::int32_t>();
    conversation.tokens = reader.list<std::int32_t>();
  }
  reader.done();
  return conversations;
}

void ConversationReader::read(const std::filesystem::path& path, bool torn_end) {
  const MappedFile file = MappedFile::open(path);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());
  for (std::int64_t line = 1; !rest.empty(); ++line) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos && torn_end) return;
    const std::string_view text = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (is_blank(text)) continue;
    try {
      add_line(text, line);
    } catch (const RequestError& error) {
      throw ConfigError("{} line {}: {}{}{}", path.string(), line, error.field,
                        error.field.empty() ? "" : ": ", error.what());
    } catch (const ConfigError& error) {
      throw ConfigError("{} line {}: {}", path.string(), line, error.what());
    }
  }
}

void ConversationReader::add_line(std::string_view text, std::int64_t line) {
  Json json = parse_json(text, "the line", {.max_bytes = kMaxLineBytes});
  if (json.is_object() && json.contains("completion")) {
    const std::vector<std::int32_t> answer = completion_ids(json["completion"]);
    json.erase("completion");
    add_finished(parse_request(json.dump(), line, rules_), answer);
    return;
  }
  Request request = parse_request(text, line, rules_);
  const Json* messages = std::get_if<Json>(&request.prompt);
  if (messages != nullptr && messages->back().at("role") == "assistant") {
    const std::vector<std::int32_t> answer = last_message_ids(request);
    add_finished(std::move(request), answer);
  } else {
    add_prompt(request);
  }
}

// Leaves the request with the messages before the answer.
std::vector<std::int32_t> ConversationReader::last_message_ids(Request& request) const {
  auto& messages = std::get<Json>(request.prompt);
  if (messages.size() < 2) {
    throw RequestError("messages", "an answer to nothing: expected a message before it");
  }
  std::vector<std::int32_t> answer = encoder_.encode_answer(messages);
  // What the template writes behind the end of sequence is not the model's to say.
  const auto is_end = [&](std::int32_t id) {
    return std::ranges::find(limits_.eos_token_ids, id) != limits_.eos_token_ids.end();
  };
  const auto end = std::ranges::find_if(answer, is_end);
  if (end != answer.end()) answer.erase(end + 1, answer.end());
  messages.erase(messages.size() - 1);
  return answer;
}

std::vector<std::int32_t> ConversationReader::completion_ids(const Json& completion) const {
  const char* field = "completion";
  if (completion.is_string()) {
    if (encoder_.tokenizer() == nullptr) {
      throw RequestError(field, "the model directory has no tokenizer.json: expected token ids");
    }
    return encoder_.tokenizer()->encode_text(completion.get_ref<const std::string&>());
  }
  if (!completion.is_array()) throw RequestError(field, "expected a string or a list of token ids");
  std::vector<std::int32_t> ids;
  ids.reserve(completion.size());
  for (const Json& id : completion) {
    if (!id.is_number_unsigned() ||
        id.get<std::uint64_t>() >= static_cast<std::uint64_t>(rules_.vocab_size)) {
      throw RequestError(field, "[{}] is not a token id below {}", ids.size(), rules_.vocab_size);
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

void ConversationReader::add_finished(Request request, const std::vector<std::int32_t>& answer) {
  request.sampling.max_tokens = 1;  // nothing is asked of the engine
  const WorkItem item = encoder_.encode(request, 0);
  if (answer.empty()) throw RequestError("completion", "the answer has no tokens");
  for (const std::int32_t id : answer) {
    if (id >= rules_.vocab_size) {
      throw RequestError("completion", "the tokenizer gives token {}, the model has {} of them", id,
                         rules_.vocab_size);
    }
  }
  if (!is_new(item.prompt)) return;
  Conversation conversation;
  conversation.tokens = item.prompt;
  conversation.prompt_tokens = static_cast<std::int32_t>(item.prompt.size());
  conversation.tokens.insert(conversation.tokens.end(), answer.begin(), answer.end());
  if (std::ssize(conversation.tokens) > limits_.longest) {
    if (conversation.prompt_tokens >= limits_.longest) {
      throw RequestError("prompt", "{} tokens leave no room for an answer within {}",
                         conversation.prompt_tokens, limits_.longest);
    }
    conversation.tokens.resize(static_cast<std::size_t>(limits_.longest));
    ++cut_;
  }
  finished_.push_back(std::move(conversation));
}

void ConversationReader::add_prompt(const Request& request) {
  WorkItem item = encoder_.encode(request, std::ssize(prompts_));
  if (is_new(item.prompt)) prompts_.push_back(std::move(item));
}

bool ConversationReader::is_new(std::span<const std::int32_t> prompt) {
  const bool fresh = seen_.insert(prompt_digest(prompt)).second;
  if (!fresh) ++duplicates_;
  return fresh;
}

}  // namespace paceline::runtime
