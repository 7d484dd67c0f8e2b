#include "runtime/training/synthesis.h"

#include <algorithm>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/files/mapped_file.h"

namespace paceline::runtime {
namespace {

constexpr std::int64_t kUselessTurns = 4096;
constexpr std::size_t kMostTurnBytes = std::size_t{1} << 20;

/// An output file as it stands; its last line may be torn.
OutputState state_of(const std::filesystem::path& path, const OutputManifest& manifest,
                     bool resume) {
  OutputState state{.path = path, .manifest = manifest};
  if (!std::filesystem::exists(path) || std::filesystem::file_size(path) == 0) return state;
  if (!resume) {
    throw ConfigError("{}: already holds data. --resume goes on with them; or name another output",
                      path.string());
  }
  const auto saved = read_manifest(manifest_path(path));
  if (!saved) {
    throw ConfigError("{}: cannot be resumed, its manifest {} is not there", path.string(),
                      manifest_path(path).string());
  }
  check_same_manifest(*saved, manifest, manifest_path(path));
  state.has_manifest = true;
  const MappedFile file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  state.whole_bytes = text.rfind('\n') + 1;  // npos + 1 is 0
  state.torn_bytes = text.size() - state.whole_bytes;
  return state;
}

std::string trimmed(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

std::string turn_line(const std::optional<std::string>& text) {
  const OrderedJson json = {{"text", text ? OrderedJson(*text) : OrderedJson()}};
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

Synthesis::Synthesis(const PromptEncoder& encoder, std::vector<WorkItem> given,
                     const Options& options, const std::filesystem::path& directory,
                     OutputManifest manifest)
    : encoder_(encoder), options_(options), num_given_(std::ssize(given)) {
  try {
    if (options_.synthesize_tokens > 0) turn_ = encoder_.user_turn();
  } catch (const RequestError& error) {
    throw ConfigError("--synthesize-tokens: {}", error.what());
  }
  Sha256 hash;
  for (const WorkItem& item : given) {
    const auto sampling = std::tuple(item.max_new_tokens, item.temperature, item.top_k, item.top_p,
                                     item.seed, item.prompt.size());
    hash.update(
        std::apply([](auto... x) { return fmt::format("{} {} {} {} {} {}\n", x...); }, sampling));
    hash.update(std::as_bytes(std::span(item.prompt)));
  }
  manifest.input_sha256 = hash.finish_hex();
  manifest.job_seed = options_.seed;
  manifest.options["answer_tokens"] = std::to_string(options_.answer_tokens);
  open_files(directory, std::move(manifest), options_.resume);
  for (WorkItem& item : given) add_prompt(std::move(item));
  read_turns(directory / "user_turns.jsonl");
  settle();
}

void Synthesis::open_files(const std::filesystem::path& directory, OutputManifest manifest,
                           bool resume) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  if (failure) throw ConfigError("{}: cannot be made: {}", directory.string(), failure.message());
  const std::filesystem::path conversations = directory / "conversations.jsonl";
  const OutputState answers = state_of(conversations, manifest, resume);
  const OutputState turns = state_of(directory / "user_turns.jsonl", manifest, resume);
  if (answers.whole_bytes > 0) {
    ConversationReader reader(encoder_, {}, {.longest = options_.longest, .eos_token_ids = {}});
    reader.read(conversations, /*torn_end=*/true);
    for (Conversation& read : reader.finished()) {
      earlier_.emplace(prompt_digest(read.prompt()), std::move(read));
    }
  }
  conversations_file_.emplace(OutputFile::open(answers));
  turns_file_.emplace(OutputFile::open(turns));
}

void Synthesis::read_turns(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::open(path);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  for (std::int64_t line = 1;; ++line) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    const std::string place = fmt::format("{} line {}", path.string(), line);
    const Json json = parse_json(rest.substr(0, end), place, {.max_bytes = kMostTurnBytes});
    rest.remove_prefix(end + 1);
    const Json text = json.is_object() ? json.value("text", Json(0)) : Json(0);
    if (!text.is_null() && !text.is_string()) {
      throw ConfigError("{}: text: expected a string or null", place);
    }
    add_turn(text.is_null() ? std::nullopt : std::optional(text.get<std::string>()));
  }
  handed_turns_ = next_turn_;
}

void Synthesis::add_prompt(WorkItem item) {
  Prompt& prompt = prompts_.emplace_back();
  const Sha256::Digest digest = prompt_digest(item.prompt);
  known_.insert(digest);
  prompt.item = std::move(item);
  prompt.item.index = 2 * (std::ssize(prompts_) - 1) + 1;
  if (auto found = earlier_.extract(digest); !found.empty()) {
    prompt.answer = std::move(found.mapped());
    prompt.handed_out = prompt.done = true;
    ++answered_;
    answer_tokens_ += prompt.answer->answer_tokens();
    if (std::ssize(prompts_) > num_given_) {
      found_tokens_ += prompt.answer->answer_tokens();
      ++found_answers_;
    }
  }
}

// Turns are added in their order.
void Synthesis::add_turn(std::optional<std::string> text) {
  ++next_turn_;
  ++useless_turns_;
  if (!text || !turn_) return;
  const std::int64_t m = std::ssize(prompts_) - num_given_;
  Request request;
  request.id = fmt::format("answer-{}", m);
  request.prompt = Json::array({{{"role", "user"}, {"content", *text}}});
  request.sampling.max_tokens = options_.answer_tokens;
  if (m % 4 == 3) request.sampling.temperature = m / 4 % 2 == 0 ? 0.7f : 1.0f;
  request.sampling.seed = request_seed(options_.seed, request.id);
  try {
    WorkItem item = encoder_.encode(request, 0);
    if (known_.contains(prompt_digest(item.prompt))) return;
    add_prompt(std::move(item));
    useless_turns_ = 0;
  } catch (const RequestError&) {
    return;  // what the template or the context refuses is no prompt
  }
}

WorkItem Synthesis::next_turn_item() {
  WorkItem item;
  item.index = 2 * handed_turns_;
  item.prompt = turn_->prompt;
  item.max_new_tokens = kUserTurnTokens;
  item.temperature = 1;
  item.seed = request_seed(options_.seed, fmt::format("user-{}", handed_turns_));
  item.stop = turn_->stop;
  ++handed_turns_;
  return item;
}

// What will be there when all that is under way has come, at the mean length so far.
double Synthesis::expected_tokens() const {
  const double mean = found_answers_ > 0
                          ? static_cast<double>(found_tokens_) / static_cast<double>(found_answers_)
                          : static_cast<double>(options_.answer_tokens) / 2;
  const auto found = std::ssize(prompts_) - num_given_;
  const auto under_way = found - found_answers_ + handed_turns_ - next_turn_;
  return static_cast<double>(found_tokens_) + mean * static_cast<double>(under_way);
}

std::vector<WorkItem> Synthesis::next(std::size_t wanted) {
  std::vector<WorkItem> items;
  while (items.size() < wanted && !exhausted()) {
    if (next_prompt_ < prompts_.size()) {
      prompts_[next_prompt_].handed_out = true;
      items.push_back(prompts_[next_prompt_].item);
      settle();
    } else if (turn_ && expected_tokens() < static_cast<double>(options_.synthesize_tokens)) {
      items.push_back(next_turn_item());
    } else {
      break;
    }
  }
  return items;
}

bool Synthesis::exhausted() const { return next_prompt_ >= given() && (!turn_ || enough()); }

void Synthesis::complete(const WorkResult& result) {
  if (result.index % 2 == 1) {
    add_answer(result);
  } else {
    const std::string text = trimmed(result.text);
    const bool counts = result.end == EndReason::kStop && !text.empty();
    turns_.emplace(result.index / 2, counts ? std::optional(text) : std::nullopt);
    add_turns();
  }
  settle();
}

// Those that have come without a gap.
void Synthesis::add_turns() {
  for (auto first = turns_.begin(); first != turns_.end() && first->first == next_turn_;
       first = turns_.erase(first)) {
    turns_file_->write_line(turn_line(first->second));
    add_turn(std::move(first->second));
  }
  check(useless_turns_ < kUselessTurns,
        "{} user turns that the model wrote gave no new prompt; give it prompts by --data",
        useless_turns_);
}

void Synthesis::add_answer(const WorkResult& result) {
  const auto index = static_cast<std::size_t>(result.index / 2);
  Prompt& prompt = prompts_.at(index);
  prompt.done = true;
  ++answered_;
  if (result.end != EndReason::kNonFinite && !result.token_ids.empty()) {
    Conversation& answer = prompt.answer.emplace();
    answer.tokens = prompt.item.prompt;
    answer.prompt_tokens = static_cast<std::int32_t>(answer.tokens.size());
    answer.tokens.insert(answer.tokens.end(), result.token_ids.begin(), result.token_ids.end());
    conversations_file_->write_line(conversation_line(answer));
    answer_tokens_ += answer.answer_tokens();
  }
  if (index < given()) return;
  ++found_answers_;
  if (prompt.answer) found_tokens_ += prompt.answer->answer_tokens();
}

// Passes over what is handed out, and over the answers that are there, without a gap.
void Synthesis::settle() {
  while (next_prompt_ < prompts_.size() && prompts_[next_prompt_].handed_out) ++next_prompt_;
  for (; next_answer_ < prompts_.size() && prompts_[next_answer_].done; ++next_answer_) {
    const Prompt& prompt = prompts_[next_answer_];
    if (next_answer_ >= given() && prompt.answer) settled_ += prompt.answer->answer_tokens();
  }
}

std::vector<Conversation> Synthesis::take() {
  turns_file_->finish();
  conversations_file_->finish();
  std::vector<Conversation> conversations;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < prompts_.size(); ++i) {
    if (i >= given() && tokens >= options_.synthesize_tokens) break;
    check(prompts_[i].done, "prompt {} of the training's data has no answer", i);
    if (!prompts_[i].answer) continue;
    if (i >= given()) tokens += prompts_[i].answer->answer_tokens();
    conversations.push_back(std::move(*prompts_[i].answer));
  }
  return conversations;
}

}  // namespace paceline::runtime
