#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "kernels/core/error.h"
#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "launcher/train_options.h"
#include "launcher/training_loop.h"
#include "runtime/drafting/drafter_files.h"
#include "runtime/job/prompt_encoder.h"
#include "runtime/training/conversations.h"
#include "runtime/training/draft_vocabulary.h"
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
  void check_output() const;
  void read_data();
  void load();
  void share_conversations();
  drafter::DrafterConfig choose_config(const runtime::SplitConversations& split);
  int finish(bool complete);
  bool is_server() const { return context_.world.rank() == 0; }

  const TrainOptions& options_;
  Context& context_;
  Deployment deployment_;
  std::int32_t num_pages_ = 0;
  std::optional<drafter::DrafterConfig> from_;        // --from's
  std::unique_ptr<runtime::PromptEncoder> encoder_;   // on rank 0
  std::vector<runtime::WorkItem> prompts_;            // on rank 0, to be answered
  std::vector<runtime::Conversation> conversations_;  // on rank 0, then on all
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
    if (!is_server()) return;
    check_output();
    read_data();
  });
}

void TrainRun::check_output() const {
  const std::filesystem::path output = options_.output;
  std::error_code failure;
  std::filesystem::create_directories(output, failure);
  if (failure)
    throw ConfigError("--output {}: cannot be made: {}", options_.output, failure.message());
  if (options_.resume) return;
  for (const char* name : {"checkpoint.bin", "model.safetensors"}) {
    if (!std::filesystem::exists(output / name)) continue;
    throw ConfigError(
        "--output {}: already holds a training ({}). --resume continues it; or name "
        "another",
        options_.output, name);
  }
}

void TrainRun::read_data() {
  const std::int64_t cache_tokens = static_cast<std::int64_t>(num_pages_) * runtime::kPageSize;
  const std::int64_t longest = std::min(deployment_.config().max_positions, cache_tokens);
  encoder_ = std::make_unique<runtime::PromptEncoder>(
      options_.model.model,
      runtime::PromptEncoder::Limits{.vocab_size = deployment_.config().vocab_size,
                                     .max_positions = deployment_.config().max_positions,
                                     .cache_tokens = cache_tokens,
                                     .job_seed = options_.seed,
                                     .now = {}});
  runtime::SamplingParams greedy;
  greedy.max_tokens = options_.answer_tokens;
  runtime::ConversationReader reader(
      *encoder_, {.defaults = greedy, .vocab_size = deployment_.config().vocab_size},
      {.longest = longest, .eos_token_ids = deployment_.config().eos_token_ids});
  for (const std::string& path : options_.data) reader.read(path);
  conversations_ = std::move(reader.finished());
  prompts_ = std::move(reader.prompts());
  std::cerr << fmt::format(
      "{} finished conversations, {} prompts to answer; {} lines left out as their prompts came "
      "before, {} conversations cut to {} tokens\n",
      conversations_.size(), prompts_.size(), reader.duplicates(), reader.cut(), longest);
}

void TrainRun::load() {
  const std::int64_t rows = std::max(options_.batch.max_batch_tokens, options_.batch.max_batch);
  if (is_server()) {
    std::cerr << "loading " << options_.model.model << " on " << context_.world.size()
              << " rank(s), " << deployment_.numerics_id() << ", "
              << deployment_.backend().description() << "\n";
  }
  deployment_.load({.max_rows = rows, .max_sampled = rows}, num_pages_);
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
    config.rnn = options_.rnn;
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
  share_conversations();
  runtime::SplitConversations split;
  together(context_.world,
           [&] { split = runtime::split_conversations(conversations_, options_.held_out); });
  context_.world.enter("held out", std::chrono::minutes(30));
  TrainingLoop loop(options_, choose_config(split), split, context_, deployment_);
  return finish(loop.run());
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
