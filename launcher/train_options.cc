#include "launcher/train_options.h"

#include <cmath>

#include "drafter/drafter.h"
#include "kernels/core/error.h"

namespace paceline::launcher {
namespace {

void add_data_options(CLI::App& command, TrainOptions& options) {
  const char* group = "Data";
  command
      .add_option("--data", options.data,
                  "Conversations and prompts, one JSON object a line; may be given several times")
      ->option_text("FILE.jsonl ...")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--synthesize-tokens", options.synthesize_tokens,
                  "Let the model write its own conversations, of that many answer tokens in all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--answer-tokens", options.answer_tokens,
                  "New tokens at most of an answer that the model writes")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--held-out", options.held_out,
                  "Conversations at most that are judged by and not trained on (one in 64)")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->group(group);
}

void add_drafter_options(CLI::App& command, TrainOptions& options) {
  const char* group = "Drafter to train";
  command
      .add_option("--kind", options.kind, "redrafter; or medusa: --depth heads, each for its depth")
      ->check(CLI::IsMember({"redrafter", "medusa"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--draft-vocab", options.draft_vocab,
                  "Tokens that it can draft, the most frequent ones; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  command.add_option("--layers", options.layers, "Residual blocks, of each Medusa head")
      ->check(CLI::Range(1, 64))
      ->capture_default_str()
      ->group(group);
  command.add_option("--exit-dim", options.exit_dim, "Width of ReDrafter's blocks; 0: the model's")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--rnn,!--no-rnn", options.rnn,
                "ReDrafter's state: recurrent, or a sum of embeddings")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--from", options.from,
                  "Go out from that drafter's weights; its kind, sizes and draft vocabulary win")
      ->option_text("DIR")
      ->group(group);
  command.add_option("--save-as", options.save_as, "Weight format of the result")
      ->check(CLI::IsMember({"fp32", "bf16", "int8"}))
      ->capture_default_str()
      ->group(group);
}

void add_recipe_options(CLI::App& command, TrainOptions& options) {
  const char* group = "Training";
  CLI::Option* steps = command.add_option("--steps", options.steps, "Length in steps")
                           ->check(CLI::PositiveNumber)
                           ->group(group);
  CLI::Option* minutes = command.add_option("--minutes", options.minutes, "Length in minutes")
                             ->check(CLI::PositiveNumber)
                             ->excludes(steps)
                             ->group(group);
  command.add_option("--epochs", options.epochs, "Length in passes over the data (default: 1)")
      ->check(CLI::PositiveNumber)
      ->excludes(steps)
      ->excludes(minutes)
      ->group(group);
  command.add_option("--depth", options.depth, "Tokens that it learns to draft ahead")
      ->check(CLI::Range(1, drafter::kMaxDraftDepth))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--depth-share", options.depth_share,
                  "Of the positions that look so far ahead, look one token further: fewer products "
                  "for depths that drafts seldom reach")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--batch", options.batch_positions,
                  "Positions of a step, over all ranks, each of up to --depth tokens")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--group", options.group_positions,
                  "Positions whose hidden states are held and shuffled together")
      ->check(CLI::Range(1, 1 << 28))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--cache-memory", options.cache_memory,
                  "Memory per rank for hidden states that later epochs use again (default: a "
                  "quarter of the free memory)")
      ->transform(size_validator())
      ->option_text("SIZE")
      ->group(group);
  command.add_option("--learning-rate", options.learning_rate, "Its peak, after the warm-up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--loss", options.loss,
                  "kl: to the model's distribution; ce: to its tokens; mix: half of each")
      ->check(CLI::IsMember({"kl", "ce", "mix"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--precision", options.precision,
                  "Of products; auto: bf16 where the CPU multiplies it")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str()
      ->group(group);
}

void add_run_options(CLI::App& command, TrainOptions& options) {
  command.add_option("--output", options.output, "Where drafter, log and checkpoint go")
      ->required()
      ->option_text("DIR");
  command.add_flag("--resume", options.resume, "Go on with a training that was interrupted");
  command.add_option("--seed", options.seed, "Of first weights, order and synthesis")
      ->capture_default_str();
  command.add_option("--checkpoint-minutes", options.checkpoint_minutes, "Between two checkpoints")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--evaluate-every", options.evaluate_every, "Steps between two evaluations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace

void add_options(CLI::App& command, TrainOptions& options) {
  add_run_options(command, options);
  add_data_options(command, options);
  add_drafter_options(command, options);
  add_recipe_options(command, options);
  add_options(command, options.model);
  add_options(command, options.cluster);
  add_options(command, options.batch);
  add_options(command, options.draft);
}

drafter::TrainingOptions training_options(const TrainOptions& options) {
  constexpr float kDepthDecay = 0.9f;  // a step counts as often as it is reached, roughly
  drafter::TrainingOptions training;
  const bool has_bf16 = drafter::Gemm::has_bf16();
  if (options.precision == "bf16" && !has_bf16) {
    throw ConfigError("--precision bf16: this CPU has no instructions for it; expected fp32");
  }
  training.precision = options.precision == "bf16" || (options.precision == "auto" && has_bf16)
                           ? drafter::GemmPrecision::kBf16
                           : drafter::GemmPrecision::kFp32;
  training.loss.teacher_share = options.loss == "kl" ? 1.0f : options.loss == "ce" ? 0.0f : 0.5f;
  training.loss.depth_weights.clear();
  for (float weight = 1; training.loss.depth() < options.depth; weight *= kDepthDecay) {
    training.loss.depth_weights.push_back(weight);
  }
  training.rate.peak = options.learning_rate;
  training.seed = options.seed;
  return training;
}

std::vector<std::pair<std::string, std::string>> recipe(const TrainOptions& options,
                                                        const drafter::Trainer& trainer) {
  const drafter::TrainingOptions& training = trainer.options();
  const drafter::AdamWOptions& adamw = training.adamw;
  const bool bf16 = training.precision == drafter::GemmPrecision::kBf16;
  std::vector<std::pair<std::string, std::string>> rows{
      {"--depth",
       fmt::format("{}, loss weights 0.9^i, shares {:.3g}^i", options.depth, options.depth_share)},
      {"--batch", fmt::format("{} positions", options.batch_positions)},
      {"--loss", options.loss},
      {"--learning-rate",
       fmt::format("{:.3g}, {} steps of warm-up, then half a cosine to 0 at step {}",
                   training.rate.peak, training.rate.warmup_steps, training.rate.steps)},
      {"optimizer",
       fmt::format("AdamW, betas {:.3g} and {:.3g}, weight decay {:.3g}, gradients "
                   "clipped to norm {:.3g}",
                   adamw.beta1, adamw.beta2, adamw.weight_decay, adamw.max_gradient_norm)},
      {"--precision", fmt::format("{}, fp32 master weights", bf16 ? "bf16" : "fp32")},
      {"--group", fmt::format("{} positions", options.group_positions)},
      {"--seed", fmt::format("{}", options.seed)},
      {"computed by", trainer.arithmetic()}};
  if (!options.from.empty()) rows.emplace_back("--from", options.from);
  if (options.synthesize_tokens > 0) {
    rows.emplace_back("--synthesize-tokens", fmt::format("{}", options.synthesize_tokens));
  }
  rows.emplace_back("--answer-tokens", fmt::format("{}", options.answer_tokens));
  return rows;
}

kernels::WeightFormat saved_format(const TrainOptions& options) {
  if (options.save_as == "fp32") return kernels::WeightFormat::kFp32;
  return options.save_as == "bf16" ? kernels::WeightFormat::kBf16
                                   : kernels::WeightFormat::kInt8Group;
}

}  // namespace paceline::launcher
