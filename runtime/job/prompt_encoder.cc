#include "runtime/job/prompt_encoder.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::runtime {

PromptEncoder::PromptEncoder(const std::filesystem::path& model_dir, const Limits& limits)
    : limits_(limits) {
  if (!std::filesystem::exists(model_dir / "tokenizer.json")) return;
  tokenizer_.emplace(Tokenizer::load(model_dir));
  template_ = ChatTemplate::load(model_dir);
}

const Tokenizer& PromptEncoder::needed_tokenizer(const char* field) const {
  if (!tokenizer_) {
    throw RequestError(field,
                       "the model directory has no tokenizer.json: only prompts of token ids, "
                       "without stop strings, can be served");
  }
  return *tokenizer_;
}

const ChatTemplate& PromptEncoder::needed_template() const {
  if (!template_) {
    throw RequestError("messages", "the model directory has no chat template; use prompt");
  }
  return *template_;
}

std::vector<std::int32_t> PromptEncoder::prompt_ids(const Request& request) const {
  if (const auto* ids = std::get_if<std::vector<std::int32_t>>(&request.prompt)) return *ids;
  if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    const TextSegment segment{*text, /*trusted=*/false};
    return needed_tokenizer("prompt").encode(std::span(&segment, 1), /*add_special_tokens=*/true);
  }
  const Tokenizer& tokenizer = needed_tokenizer("messages");
  // The template writes the beginning of the sequence itself.
  return tokenizer.encode(needed_template().render(std::get<Json>(request.prompt),
                                                   /*add_generation_prompt=*/true, limits_.now),
                          /*add_special_tokens=*/false);
}

std::vector<std::int32_t> PromptEncoder::encode_answer(const Json& messages) const {
  const Tokenizer& tokenizer = needed_tokenizer("messages");
  Json asked = messages;
  asked.erase(asked.size() - 1);
  const std::string prompt =
      join_segments(needed_template().render(asked, /*add_generation_prompt=*/true, limits_.now));
  std::vector<TextSegment> whole =
      needed_template().render(messages, /*add_generation_prompt=*/false, limits_.now);
  if (!join_segments(whole).starts_with(prompt)) {
    throw RequestError("messages",
                       "the chat template does not write the answer where it asks for one");
  }
  std::size_t left = prompt.size();
  for (TextSegment& segment : whole) {
    const std::size_t cut = std::min(left, segment.text.size());
    segment.text.erase(0, cut);
    left -= cut;
  }
  return tokenizer.encode(whole, /*add_special_tokens=*/false);
}

PromptEncoder::UserTurn PromptEncoder::user_turn() const {
  const Tokenizer& tokenizer = needed_tokenizer("messages");
  const std::string content = "PACELINE USER CONTENT";
  std::vector<TextSegment> segments =
      needed_template().render(Json::array({{{"role", "user"}, {"content", content}}}),
                               /*add_generation_prompt=*/true, limits_.now);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const std::size_t at = segments[i].text.find(content);
    if (at == std::string::npos) continue;
    std::string behind = segments[i].text.substr(at + content.size());
    for (std::size_t j = i + 1; j < segments.size(); ++j) behind += segments[j].text;
    segments[i].text.resize(at);
    segments.resize(i + 1);
    UserTurn turn;
    turn.prompt = tokenizer.encode(segments, /*add_special_tokens=*/false);
    // Special tokens end a turn by themselves: they are ends of sequence.
    const TextSegment suffix{behind.substr(0, behind.find('\n')), /*trusted=*/true};
    const auto ids = tokenizer.encode(std::span(&suffix, 1), /*add_special_tokens=*/false);
    if (!ids.empty() && !tokenizer.is_special(ids[0])) turn.stop.push_back(suffix.text);
    return turn;
  }
  throw RequestError("messages", "the chat template does not write a user's message");
}

WorkItem PromptEncoder::encode(const Request& request, std::int64_t index) const {
  const char* field = request.is_chat() ? "messages" : "prompt";
  const SamplingParams& sampling = request.sampling;
  if (!sampling.stop.empty()) needed_tokenizer("stop");
  WorkItem item;
  item.index = index;
  try {
    item.prompt = prompt_ids(request);
  } catch (RequestError& error) {
    if (error.field.empty()) error.field = field;  // the tokenizer does not know whose text it was
    throw;
  }
  for (const std::int32_t id : item.prompt) {
    if (id < limits_.vocab_size) continue;
    throw RequestError(field, "the tokenizer gives token {}, the model has {} of them", id,
                       limits_.vocab_size);
  }
  const auto length = static_cast<std::int64_t>(item.prompt.size());
  if (length == 0) throw RequestError(field, "the prompt has no tokens");
  if (length >= limits_.max_positions) {
    throw RequestError(field, "the prompt has {} tokens, which leaves no room in the context of {}",
                       length, limits_.max_positions);
  }
  const std::int64_t new_tokens = std::min(sampling.max_tokens, limits_.max_positions - length);
  if (length + new_tokens - 1 > limits_.cache_tokens) {
    throw RequestError(field,
                       "the prompt's {} tokens and {} new ones need more than the {} tokens that "
                       "the key/value cache holds; raise --kv-memory or lower max_tokens",
                       length, new_tokens, limits_.cache_tokens);
  }
  item.max_new_tokens = static_cast<std::int32_t>(new_tokens);
  item.temperature = sampling.temperature;
  item.top_k = sampling.top_k;
  item.top_p = sampling.top_p;
  item.seed = sampling.seed.value_or(request_seed(limits_.job_seed, request.id));
  item.stop = sampling.stop;
  item.speculative = request.speculative;
  return item;
}

}  // namespace paceline::runtime
