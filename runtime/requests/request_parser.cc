#include "runtime/requests/request_parser.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

constexpr std::size_t kMaxIdBytes = 512;
constexpr std::string_view kChatUrl = "/v1/chat/completions";
constexpr std::string_view kCompletionUrl = "/v1/completions";

/// A field of OpenAI's API, or of servers that extend it, which is not supported, and the values
/// of it that ask for nothing. Null always asks for nothing.
struct UnsupportedField {
  std::string_view name;
  std::string_view harmless;  ///< a JSON list of values
};

constexpr std::array kUnsupported = {
    UnsupportedField{"add_generation_prompt", "[true]"},
    UnsupportedField{"audio", "[]"},
    UnsupportedField{"best_of", "[1]"},
    UnsupportedField{"chat_template", "[]"},
    UnsupportedField{"chat_template_kwargs", "[{}]"},
    UnsupportedField{"continue_final_message", "[false]"},
    UnsupportedField{"echo", "[false]"},
    UnsupportedField{"frequency_penalty", "[0]"},
    UnsupportedField{"function_call", R"(["none"])"},
    UnsupportedField{"functions", "[[]]"},
    UnsupportedField{"ignore_eos", "[false]"},
    UnsupportedField{"include_stop_str_in_output", "[false]"},
    UnsupportedField{"length_penalty", "[1]"},
    UnsupportedField{"logit_bias", "[{}]"},
    UnsupportedField{"logprobs", "[false]"},
    UnsupportedField{"min_p", "[0]"},
    UnsupportedField{"min_tokens", "[0]"},
    UnsupportedField{"modalities", R"([["text"]])"},
    UnsupportedField{"n", "[1]"},
    UnsupportedField{"parallel_tool_calls", "[true]"},
    UnsupportedField{"prediction", "[]"},
    UnsupportedField{"presence_penalty", "[0]"},
    UnsupportedField{"reasoning_effort", "[]"},
    UnsupportedField{"repetition_penalty", "[1]"},
    UnsupportedField{"response_format", R"([{"type": "text"}])"},
    UnsupportedField{"service_tier", R"(["auto", "default"])"},
    UnsupportedField{"skip_special_tokens", "[true]"},
    UnsupportedField{"stop_token_ids", "[[]]"},
    UnsupportedField{"store", "[false]"},
    UnsupportedField{"stream", "[false]"},
    UnsupportedField{"stream_options", "[]"},
    UnsupportedField{"suffix", R"([""])"},
    UnsupportedField{"tool_choice", R"(["none", "auto"])"},
    UnsupportedField{"tools", "[[]]"},
    UnsupportedField{"top_logprobs", "[0]"},
    UnsupportedField{"use_beam_search", "[false]"},
    UnsupportedField{"verbosity", "[]"},
    UnsupportedField{"web_search_options", "[]"},
};

constexpr std::array<std::string_view, 13> kBodyFields = {
    "messages",    "prompt", "max_tokens", "max_completion_tokens",
    "temperature", "top_p",  "top_k",      "seed",
    "stop",        "model",  "user",       "metadata",
    "speculative"};

/// Beside `body`; in a flat line, beside the body's fields.
constexpr std::array<std::string_view, 7> kLineFields = {"custom_id", "method", "url",     "body",
                                                         "model",     "user",   "metadata"};

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// A value for a message: itself if it is short, else its type.
std::string shown(const Json& value) {
  constexpr std::size_t kMaxShown = 60;
  if (value.is_structured() && value.size() > kMaxShown) return value.type_name();
  if (value.is_string() && value.get_ref<const std::string&>().size() > kMaxShown) return "string";
  const std::string text = value.dump();
  return text.size() <= kMaxShown ? text : value.type_name();
}

[[noreturn]] void refuse(std::string_view field, const Json& value, std::string_view expected) {
  throw RequestError(std::string(field), "\"{}\" is {}, expected {}", field, shown(value),
                     expected);
}

/// nullptr if the key is absent or null: both leave the default.
const Json* find(const Json& object, std::string_view key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

/// A field in neither list must be one of kUnsupported with a harmless value.
void refuse_unsupported(const Json& object, std::span<const std::string_view> accepted,
                        std::span<const std::string_view> also_accepted = {}) {
  for (const auto& item : object.items()) {
    const std::string& name = item.key();
    if (contains(accepted, name) || contains(also_accepted, name)) continue;
    const auto row = std::find_if(kUnsupported.begin(), kUnsupported.end(),
                                  [&](const auto& field) { return field.name == name; });
    const std::string shown_name = name.substr(0, 100);
    if (row == kUnsupported.end()) {
      throw RequestError(shown_name, "the field \"{}\" is not known here", shown_name);
    }
    if (item.value().is_null()) continue;
    const Json harmless = Json::parse(row->harmless);
    if (std::find(harmless.begin(), harmless.end(), item.value()) == harmless.end()) {
      throw RequestError(shown_name, "\"{}\": {} is not supported", name, shown(item.value()));
    }
  }
}

std::optional<float> number(const Json& body, std::string_view key, double low, double high) {
  const Json* value = find(body, key);
  if (value == nullptr) return std::nullopt;
  // Compared as a double, so that narrowing is in range; what would round to 0 does not mean 0.
  const double wide = value->is_number() ? value->get<double>() : -1.0;
  if (!(wide >= low && wide <= high) || (wide != 0.0 && static_cast<float>(wide) == 0.0f)) {
    refuse(key, *value, fmt::format("a number from {} to {}", low, high));
  }
  return static_cast<float>(wide);
}

std::optional<std::int64_t> whole_number(const Json& body, std::string_view key, std::int64_t low,
                                         std::int64_t high) {
  const Json* value = find(body, key);
  if (value == nullptr) return std::nullopt;
  const bool fits = value->is_number_unsigned()
                        ? value->get<std::uint64_t>() <= static_cast<std::uint64_t>(high)
                        : value->is_number_integer();
  if (!fits || value->get<std::int64_t>() < low || value->get<std::int64_t>() > high) {
    refuse(key, *value, fmt::format("a whole number from {} to {}", low, high));
  }
  return value->get<std::int64_t>();
}

/// `max_completion_tokens` is the newer name of `max_tokens`.
std::optional<std::int64_t> max_tokens(const Json& body) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  const auto older = whole_number(body, "max_tokens", 1, kMost);
  const auto newer = whole_number(body, "max_completion_tokens", 1, kMost);
  if (older && newer && *older != *newer) {
    throw RequestError("max_completion_tokens",
                       "\"max_completion_tokens\" is {}, but \"max_tokens\" is {}", *newer, *older);
  }
  return newer ? newer : older;
}

std::optional<std::uint64_t> seed(const Json& body) {
  const Json* value = find(body, "seed");
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) refuse("seed", *value, "a whole number of 64 bits");
  // A negative seed counts modulo 2^64.
  return value->is_number_unsigned() ? value->get<std::uint64_t>()
                                     : static_cast<std::uint64_t>(value->get<std::int64_t>());
}

std::optional<std::vector<std::string>> stop_strings(const Json& body) {
  const Json* value = find(body, "stop");
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return std::vector{value->get<std::string>()};
  if (!value->is_array() || value->size() > kMaxStopStrings) {
    refuse("stop", *value, fmt::format("a string or at most {} of them", kMaxStopStrings));
  }
  std::vector<std::string> strings;
  for (const Json& item : *value) {
    if (!item.is_string()) refuse("stop", *value, "a string or a list of strings");
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

SamplingParams sampling_of(const Json& body, const SamplingParams& defaults) {
  SamplingParams sampling = defaults;
  sampling.temperature =
      number(body, "temperature", 0, kMaxTemperature).value_or(sampling.temperature);
  sampling.top_p = number(body, "top_p", 0, 1).value_or(sampling.top_p);
  // -1 is how some servers write "all".
  const auto top_k = whole_number(body, "top_k", -1, std::numeric_limits<std::int32_t>::max());
  if (top_k) sampling.top_k = static_cast<std::int32_t>(std::max<std::int64_t>(*top_k, 0));
  if (const auto own = seed(body)) sampling.seed = own;
  sampling.max_tokens = max_tokens(body).value_or(sampling.max_tokens);
  if (auto own = stop_strings(body)) sampling.stop = std::move(*own);
  check_sampling(sampling);
  return sampling;
}

bool speculative_of(const Json& body) {
  const Json* value = find(body, "speculative");
  if (value == nullptr) return true;
  if (!value->is_boolean()) refuse("speculative", *value, "true or false");
  return value->get<bool>();
}

/// A message's text: a string, or a list of parts {"type": "text", "text": ...}.
std::string content_text(const Json& content, const std::string& field) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array() || content.empty()) refuse(field, content, "a string or a list of parts");
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string place = fmt::format("{}[{}]", field, i);
    if (!part.is_object() || part.value("type", Json()) != "text") {
      refuse(place, part, "an object with \"type\": \"text\"; other parts are not supported");
    }
    const auto found = part.find("text");
    if (found == part.end() || !found->is_string() || part.size() != 2) {
      refuse(place, part, "the fields \"type\" and \"text\", a string");
    }
    if (i > 0) text += '\n';
    text += found->get_ref<const std::string&>();
  }
  return text;
}

Json message_of(const Json& message, const std::string& place) {
  if (!message.is_object()) refuse(place, message, "an object");
  for (const auto& item : message.items()) {
    const bool asks_nothing =
        item.value().is_null() || (item.value().is_array() && item.value().empty());
    if (item.key() != "role" && item.key() != "content" && !asks_nothing) {
      refuse(place + "." + item.key().substr(0, 100), item.value(),
             "only \"role\" and \"content\": other fields are not supported");
    }
  }
  const Json role = message.value("role", Json());
  if (role != "system" && role != "user" && role != "assistant") {
    refuse(place + ".role", role, "system, user or assistant");
  }
  const auto content = message.find("content");
  return {
      {"role", role},
      {"content", content_text(content == message.end() ? Json() : *content, place + ".content")}};
}

Json messages_of(const Json& messages) {
  if (!messages.is_array() || messages.empty()) {
    refuse("messages", messages, "a list of at least one message");
  }
  Json list = Json::array();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    list.push_back(message_of(messages[i], fmt::format("messages[{}]", i)));
  }
  return list;
}

std::vector<std::int32_t> token_ids_of(const Json& prompt, std::int64_t vocab_size) {
  if (prompt.empty()) refuse("prompt", prompt, "a string or at least one token id");
  std::vector<std::int32_t> ids;
  ids.reserve(prompt.size());
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    const Json& id = prompt[i];
    if (!id.is_number_unsigned() ||
        id.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab_size)) {
      throw RequestError("prompt", "\"prompt\"[{}] is {}, expected a token id below {}", i,
                         shown(id), vocab_size);
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

void read_prompt(const Json& body, const RequestRules& rules, Request& request) {
  const Json* messages = find(body, "messages");
  const Json* prompt = find(body, "prompt");
  if (messages != nullptr && prompt != nullptr) {
    throw RequestError("prompt", "\"messages\" and \"prompt\" are both there, expected one");
  }
  if (messages != nullptr) {
    request.prompt = messages_of(*messages);
  } else if (prompt == nullptr) {
    throw RequestError("prompt", "neither \"messages\" nor \"prompt\" is there");
  } else if (prompt->is_string()) {
    request.prompt = prompt->get<std::string>();
  } else if (prompt->is_array()) {
    request.prompt = token_ids_of(*prompt, rules.vocab_size);
  } else {
    refuse("prompt", *prompt, "a string or a list of token ids");
  }
}

void check_endpoint(const Json& object, const Request& request) {
  const Json* method = find(object, "method");
  if (method != nullptr && *method != "POST") refuse("method", *method, "POST");
  const Json* url = find(object, "url");
  if (url == nullptr) return;
  const std::string_view expected = request.is_chat() ? kChatUrl : kCompletionUrl;
  if (*url != expected) {
    refuse("url", *url,
           fmt::format("{}, as the line has \"{}\"", expected,
                       request.is_chat() ? "messages" : "prompt"));
  }
}

/// The fields that pass through. In a batch line they may stand in the body or beside it.
OrderedJson carried_of(const Json& object, const Json& body) {
  OrderedJson carried = OrderedJson::object();
  for (const char* name : {"method", "url", "model", "user", "metadata"}) {
    const Json* value = find(body, name) ? find(body, name) : find(object, name);
    if (value == nullptr) continue;
    const bool is_metadata = std::string_view(name) == "metadata";
    if (is_metadata ? !value->is_object() : !value->is_string()) {
      refuse(name, *value, is_metadata ? "an object" : "a string");
    }
    carried[name] = *value;
  }
  return carried;
}

bool is_usable_id(const Json& id) {
  return id.is_string() && !id.get_ref<const std::string&>().empty() &&
         id.get_ref<const std::string&>().size() <= kMaxIdBytes;
}

std::string id_of(const Json& json, std::int64_t line) {
  const Json* id = json.is_object() ? find(json, "custom_id") : nullptr;
  return id != nullptr && is_usable_id(*id) ? id->get<std::string>() : fmt::format("line-{}", line);
}

}  // namespace

Request parse_request(std::string_view text, std::int64_t line, const RequestRules& rules) {
  Json json;
  try {
    json = parse_json(text, "", {.max_bytes = kMaxLineBytes});
  } catch (const ConfigError& error) {
    // Behind the empty name of its source.
    throw RequestError("", "{}",
                       std::string_view(error.what()).substr(std::string_view(": ").size()));
  }
  if (!json.is_object()) throw RequestError("", "expected a JSON object, not {}", shown(json));
  Request request;
  request.id = id_of(json, line);
  request.line = line;
  const Json* id = find(json, "custom_id");
  if (id != nullptr && !is_usable_id(*id)) {
    refuse("custom_id", *id, fmt::format("a string of 1 to {} bytes", kMaxIdBytes));
  }
  const Json* batch_body = find(json, "body");
  if (batch_body != nullptr && !batch_body->is_object()) refuse("body", *batch_body, "an object");
  const Json& body = batch_body != nullptr ? *batch_body : json;
  if (batch_body != nullptr) {
    refuse_unsupported(json, kLineFields);
    refuse_unsupported(body, kBodyFields);
  } else {
    refuse_unsupported(json, kLineFields, kBodyFields);
  }
  read_prompt(body, rules, request);
  check_endpoint(json, request);
  request.sampling = sampling_of(body, rules.defaults);
  request.speculative = speculative_of(body);
  request.carried = carried_of(json, body);
  return request;
}

std::string request_id(std::string_view text, std::int64_t line) {
  try {
    return id_of(parse_json(text, "", {.max_bytes = kMaxLineBytes}), line);
  } catch (const ConfigError&) {
    return fmt::format("line-{}", line);
  }
}

}  // namespace paceline::runtime
