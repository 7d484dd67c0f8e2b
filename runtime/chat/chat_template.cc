#include "runtime/chat/chat_template.h"

#include "kernels/core/error.h"
#include "runtime/chat/interpreter.h"
#include "runtime/chat/syntax.h"

namespace paceline::runtime {

namespace fs = std::filesystem;

ChatTemplate ChatTemplate::compile(std::string_view source, std::string_view where,
                                   ChatTokens tokens) {
  return {chat::parse_template(source, where), std::move(tokens)};
}

namespace {

/// "bos_token": "<s>", {"content": "<s>", ...}, or null.
std::optional<std::string> read_token(const Json& config, const std::string& key,
                                      const std::string& where) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  throw ConfigError("{}: \"{}\" must be a string or an object with \"content\"", where, key);
}

/// "chat_template" of tokenizer_config.json, if it has one.
std::optional<std::string> read_template(const Json& config, const std::string& where) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) {
    throw ConfigError("{}: \"chat_template\" must be a string or a list of templates", where);
  }
  for (const Json& entry : *found) {
    const bool named = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                       entry.contains("template") && entry["template"].is_string();
    if (!named) {
      throw ConfigError(
          "{}: each \"chat_template\" of a list needs the strings \"name\" and "
          "\"template\"",
          where);
    }
    if (entry["name"].get_ref<const std::string&>() == "default") {
      return entry["template"].get<std::string>();
    }
  }
  throw ConfigError("{}: no \"chat_template\" of the list is named \"default\"", where);
}

}  // namespace

std::optional<ChatTemplate> ChatTemplate::load(const fs::path& model_dir) {
  const fs::path config_path = model_dir / "tokenizer_config.json";
  const fs::path template_path = model_dir / "chat_template.jinja";
  Json config = Json::object();
  if (fs::exists(config_path)) {
    config = read_json(config_path);
    if (!config.is_object()) throw ConfigError("{}: must be an object", config_path.string());
  }
  const std::string where = config_path.string();
  ChatTokens tokens{read_token(config, "bos_token", where), read_token(config, "eos_token", where),
                    read_token(config, "unk_token", where), read_token(config, "pad_token", where)};
  if (fs::exists(template_path)) {
    return compile(read_file(template_path), template_path.string(), std::move(tokens));
  }
  const std::optional<std::string> source = read_template(config, where);
  if (!source) return std::nullopt;
  return compile(*source, where, std::move(tokens));
}

std::vector<TextSegment> ChatTemplate::render(const Json& messages, bool add_generation_prompt,
                                              std::chrono::local_seconds now,
                                              const ChatLimits& limits) const {
  using chat::Value;
  if (!messages.is_array()) throw RequestError("messages", "must be a list of messages");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object()) throw RequestError("messages", "[{}] must be an object", i);
  }
  chat::Interpreter interpreter(*program_, limits, now);
  try {
    interpreter.define("messages", chat::from_json(messages, interpreter.budget()));
    interpreter.define("add_generation_prompt", Value::of(add_generation_prompt));
    interpreter.define("tools", Value::none());
    interpreter.define("documents", Value::none());
    const auto define_token = [&](std::string_view name, const std::optional<std::string>& token) {
      if (token) interpreter.define(name, Value::of(chat::Text(*token, true)));
    };
    define_token("bos_token", tokens_.bos_token);
    define_token("eos_token", tokens_.eos_token);
    define_token("unk_token", tokens_.unk_token);
    define_token("pad_token", tokens_.pad_token);
    return interpreter.run().segments();
  } catch (const chat::Failure& failure) {
    throw RequestError("messages", "{}: chat template line {}: {}", program_->where,
                       interpreter.line(), failure.what());
  }
}

std::string join_segments(const std::vector<TextSegment>& segments) {
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

}  // namespace paceline::runtime
