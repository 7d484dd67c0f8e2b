#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "kernels/core/error.h"
#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "launcher/generate_report.h"
#include "launcher/train_options.h"
#include "launcher/training_loop.h"
#include "launcher/work_run.h"
#include "runtime/drafting/drafter_files.h"
#include "runtime/files/atomic_file.h"
#include "runtime/job/prompt_encoder.h"
#include "runtime/training/conversations.h"
#include "runtime/training/draft_vocabulary.h"
#include "runtime/training/model_card.h"
#include "runtime/training/synthesis.h"
#include "runtime/training/teacher.h"

namespace paceline::launcher {
namespace {

class TrainRun {
 public:
  TrainRun(const TrainOptions& options, Context& context)
      : options_(options),
        context_(context),
        deployment_(context.world, options.model, options.cluster, options.draft) {}

  int run();

 private:
  void prepare();
  void check_depth() const;
  void check_output() const;
  void read_data();
  void load();
  bool synthesize();
  void show_synthesis();
  void write_card(const TrainingLoop& loop, const runtime::SplitConversations& split) const;
  void share_conversations();
  drafter::DrafterConfig choose_config(const runtime::SplitConversations& split);
  int finish(bool complete);
  std::int64_t cache_tokens() const {
    return static_cast<std::int64_t>(num_pages_) * runtime::kPageSize;
  }
  runtime::SchedulerLimits engine_limits() {
    return scheduler_limits(options_.batch, num_pages_, deployment_.drafting().shape());
  }
  bool is_server() const { return context_.world.rank() == 0; }

  const TrainOptions& options_;
  Context& context_;
  Deployment deployment_;
  std::int32_t num_pages_ = 0;
  std::optional<drafter::DrafterConfig> from_;        // --from's
  std::unique_ptr<runtime::PromptEncoder> encoder_;   // on leaders
  std::optional<runtime::Synthesis> synthesis_;       // on rank 0, if the engine is to write
  std::vector<runtime::Conversation> conversations_;  // on rank 0, then on all
  std::vector<std::pair<std::string, std::int64_t>> sources_;  // on rank 0
  std::chrono::steady_clock::time_point shown_;
  std::int64_t shown_tokens_ = 0;
};

// Everything that can be checked before weights load.
void TrainRun::prepare() {
  constexpr auto kPreparePatience = std::chrono::minutes(30);
  context_.world.enter("configure", kPreparePatience);
  num_pages_ = deployment_.kv_pages(options_.batch.kv_memory, options_.batch.max_batch);
  together(context_.world, [&] {
    training_options(options_);
    if (options_.data.empty() && options_.synthesize_tokens == 0) {
      throw ConfigError("nothing to train on: expected --data or --synthesize-tokens");
    }
    if (!options_.from.empty()) {
      const runtime::Checkpoint checkpoint = runtime::Checkpoint::open(options_.model.model);
      from_ = runtime::DrafterFiles::open(options_.from, runtime::WeightChoice::kFp32,
                                          {options_.model.model, deployment_.config(), checkpoint})
                  .config();
    }
    check_depth();
    if (!deployment_.leads_replica()) return;
    encoder_ = std::make_unique<runtime::PromptEncoder>(
        options_.model.model,
        runtime::PromptEncoder::Limits{.vocab_size = deployment_.config().vocab_size,
                                       .max_positions = deployment_.config().max_positions,
                                       .cache_tokens = cache_tokens(),
                                       .job_seed = options_.seed,
                                       .now = {}});
    if (!is_server()) return;
    check_output();
    read_data();
  });
}

// Medusa has a head a depth, all as wide as the model.
void TrainRun::check_depth() const {
  if (!from_) {
    if (options_.kind == "medusa" && options_.exit_dim > 0) {
      throw ConfigError("--exit-dim {}: Medusa's heads are as wide as the model",
                        options_.exit_dim);
    }
    return;
  }
  if (from_->kind == drafter::DrafterKind::kMedusa && from_->num_heads != options_.depth) {
    throw ConfigError("--depth {}: the drafter of --from {} has {} Medusa heads, one a depth",
                      options_.depth, options_.from, from_->num_heads);
  }
}

void TrainRun::check_output() const {
  const std::filesystem::path output = options_.output;
  std::error_code failure;
  std::filesystem::create_directories(output, failure);
  if (failure)
    throw ConfigError("--output {}: cannot be made: {}", options_.output, failure.message());
  if (options_.resume) return;
  for (const char* name : {"checkpoint.bin", "model.safetensors", "medusa_lm_head.safetensors"}) {
    if (!std::filesystem::exists(output / name)) continue;
    throw ConfigError(
        "--output {}: already holds a training ({}). --resume continues it; or name "
        "another",
        options_.output, name);
  }
}

void TrainRun::read_data() {
  const std::int64_t longest = std::min(deployment_.config().max_positions, cache_tokens());
  runtime::SamplingParams greedy;
  greedy.max_tokens = options_.answer_tokens;
  runtime::ConversationReader reader(
      *encoder_, {.defaults = greedy, .vocab_size = deployment_.config().vocab_size},
      {.longest = longest, .eos_token_ids = deployment_.config().eos_token_ids});
  for (const std::string& path : options_.data) {
    const std::size_t before = reader.finished().size();
    reader.read(path);
    sources_.emplace_back(std::filesystem::path(path).filename().string(),
                          std::ssize(reader.finished()) - static_cast<std::int64_t>(before));
  }
  conversations_ = std::move(reader.finished());
  if (is_server() && !options_.data.empty()) {
    std::cerr << fmt::format(
        "{} finished conversations, {} prompts to answer; {} lines left out as their prompts came "
        "before, {} conversations cut to {} tokens\n",
        conversations_.size(), reader.prompts().size(), reader.duplicates(), reader.cut(), longest);
  }
  if (reader.prompts().empty() && options_.synthesize_tokens == 0) return;
  runtime::OutputManifest manifest;
  manifest.model_sha256 = deployment_.model_sha256();
  manifest.numerics_id = deployment_.numerics_id();
  synthesis_.emplace(*encoder_, std::move(reader.prompts()),
                     runtime::Synthesis::Options{.synthesize_tokens = options_.synthesize_tokens,
                                                 .answer_tokens = options_.answer_tokens,
                                                 .longest = longest,
                                                 .seed = options_.seed,
                                                 .resume = options_.resume},
                     std::filesystem::path(options_.output) / "data", std::move(manifest));
}

void TrainRun::load() {
  if (is_server()) {
    std::cerr << "loading " << options_.model.model << " on " << context_.world.size()
              << " rank(s), "
              << (deployment_.tp() > 1 ? "exchange by " + deployment_.exchange_text() + ", " : "")
              << deployment_.numerics_id() << ", " << deployment_.backend().description() << "\n";
  }
  const runtime::SchedulerLimits limits = engine_limits();
  deployment_.load({.max_rows = limits.max_rows, .max_sampled = limits.max_rows}, num_pages_);
}

// The engine writes what is not there yet. False: a signal ended it.
bool TrainRun::synthesize() {
  const std::uint8_t mine = is_server() && synthesis_ ? 1 : 0;
  if (gather_values(context_.world.all(), mine).front() == 0) return true;
  WorkRun work{.limits = engine_limits()};
  if (deployment_.leads_replica()) work.tokenizer = encoder_->tokenizer();
  if (is_server()) {
    work.callbacks = {
        .next = [this](std::size_t wanted) { return synthesis_->next(wanted); },
        .exhausted = [this] { return synthesis_->exhausted(); },
        .complete = [this](const runtime::WorkResult& result) { synthesis_->complete(result); }};
    work.tick = [this](const auto&) { show_synthesis(); };
  }
  shown_ = std::chrono::steady_clock::now();
  if (is_server()) shown_tokens_ = synthesis_->answer_tokens();
  const std::vector<runtime::ReplicaReport> reports = run_work(context_, deployment_, work);
  const bool ended = std::ranges::any_of(reports, [](const runtime::ReplicaReport& report) {
    return report.end == runtime::RunEnd::kTerminated;
  });
  constexpr auto kFinishPatience = std::chrono::hours(24 * 30);  // for the last replica
  context_.world.enter("finish", kFinishPatience);
  if (gather_values(context_.world.all(), std::uint8_t{ended}).front() != 0) return false;
  if (!is_server()) return true;
  const std::int64_t given = synthesis_->given_prompts();
  std::vector<runtime::Conversation> written = synthesis_->take();
  if (given > 0) sources_.emplace_back("prompts of --data, answered by the model", given);
  if (options_.synthesize_tokens > 0) {
    sources_.emplace_back("written by the model, prompts and answers", std::ssize(written) - given);
  }
  std::ranges::move(written, std::back_inserter(conversations_));
  return true;
}

void TrainRun::show_synthesis() {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - shown_).count();
  if (seconds < 10) return;
  const std::int64_t tokens = synthesis_->answer_tokens();
  std::cerr << fmt::format(
      "{} prompts answered, {} user turns, {} answer tokens, {:.0f} a second\n",
      synthesis_->answered(), synthesis_->user_turns(), tokens,
      static_cast<double>(tokens - shown_tokens_) / seconds);
  shown_ = now;
  shown_tokens_ = tokens;
}

void TrainRun::share_conversations() {
  const std::vector<std::byte> bytes = broadcast_bytes(
      context_.world.all(),
      is_server() ? runtime::encode_conversations(conversations_) : std::vector<std::byte>());
  if (!is_server()) conversations_ = runtime::decode_conversations(bytes);
}

drafter::DrafterConfig TrainRun::choose_config(const runtime::SplitConversations& split) {
  drafter::DrafterConfig config;
  if (from_) {
    config = *from_;
  } else {
    config.vocab_size = deployment_.config().vocab_size;
    config.hidden_size = deployment_.config().hidden_size;
    config.exit_dim = options_.exit_dim > 0 ? options_.exit_dim : config.hidden_size;
    config.num_draft_layers = options_.layers;
    if (options_.kind == "medusa") {
      config.kind = drafter::DrafterKind::kMedusa;
      config.num_heads = options_.depth;
      config.base_model = model_name(options_.model.model);
    } else {
      config.rnn = options_.rnn;
    }
    std::vector<std::int32_t> chosen;
    if (is_server()) {
      std::vector<std::int32_t> always = deployment_.config().eos_token_ids;
      if (const runtime::Tokenizer* tokenizer = encoder_->tokenizer()) {
        for (std::int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
          if (tokenizer->is_special(id)) always.push_back(id);
        }
      }
      chosen = runtime::choose_draft_vocabulary(split.training, options_.draft_vocab,
                                                config.vocab_size, always);
    }
    const auto view = std::as_bytes(std::span(chosen));
    const std::vector<std::byte> bytes =
        broadcast_bytes(context_.world.all(), {view.begin(), view.end()});
    config.draft_vocab.resize(bytes.size() / sizeof(std::int32_t));
    std::memcpy(config.draft_vocab.data(), bytes.data(), bytes.size());
  }
  if (is_server()) {
    std::cerr << fmt::format(
        "draft vocabulary of {} tokens, {:.2f} % of the held-out answers' tokens\n",
        config.num_outputs(), 100 * runtime::covered_share(split.held_out, config.draft_vocab));
  }
  return config;
}

int TrainRun::run() {
  prepare();
  load();
  if (!synthesize()) return finish(false);
  share_conversations();
  runtime::SplitConversations split;
  together(context_.world,
           [&] { split = runtime::split_conversations(conversations_, options_.held_out); });
  constexpr auto kHeldOutPatience = std::chrono::minutes(30);
  context_.world.enter("held out", kHeldOutPatience);
  TrainingLoop loop(options_, choose_config(split), split, context_, deployment_);
  const bool complete = loop.run();
  if (complete && is_server()) write_card(loop, split);
  return finish(complete);
}

void TrainRun::write_card(const TrainingLoop& loop,
                          const runtime::SplitConversations& split) const {
  const auto tokens = [](const std::vector<const runtime::Conversation*>& texts) {
    std::int64_t sum = 0;
    for (const runtime::Conversation* text : texts) sum += text->answer_tokens();
    return sum;
  };
  const drafter::DrafterConfig& config = loop.trainer().parameters().config();
  runtime::ModelCard card;
  card.base_name = model_name(options_.model.model);
  card.base_sha256 = deployment_.model_sha256();
  card.numerics_id = deployment_.numerics_id();
  card.config = config;
  card.weights = options_.save_as;
  card.sources = sources_;
  card.training_conversations = std::ssize(split.training);
  card.training_tokens = tokens(split.training);
  card.held_out_conversations = std::ssize(split.held_out);
  card.held_out_tokens = tokens(split.held_out);
  card.covered = runtime::covered_share(split.held_out, config.draft_vocab);
  card.recipe = recipe(options_, loop.trainer());
  card.steps = loop.trainer().steps_done();
  card.positions = loop.log()->positions();
  card.seconds = loop.all_seconds();
  card.loss = loop.log()->last().loss;
  card.evaluations = loop.log()->evaluations();
  const std::string text = runtime::model_card_text(card);
  runtime::AtomicFile file(std::filesystem::path(options_.output) / "README.md");
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

int TrainRun::finish(bool complete) {
  context_.world.enter("finish");
  const std::vector<int> signals = gather_values(context_.world.all(), context_.signals.last());
  if (complete) return kSuccess;
  if (is_server()) std::cerr << "ended by a signal; the same command with --resume goes on\n";
  const auto signal = std::ranges::find_if(signals, [](int number) { return number != 0; });
  return signal != signals.end() ? 128 + *signal : kTerminated;
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Train a drafter for a model by distillation");
  add_options(*command, *options);
  command->callback([options, &action] {
    action = [options](Context& context) { return TrainRun(*options, context).run(); };
  });
}

}  // namespace paceline::launcher
