#include "launcher/training_loop.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "drafter/head_drafter.h"
#include "drafter/training/trained_weights.h"
#include "kernels/core/error.h"
#include "runtime/drafting/drafter_files.h"
#include "runtime/drafting/drafter_writer.h"
#include "runtime/drafting/model_embedding.h"
#include "runtime/files/atomic_file.h"

namespace paceline::launcher {
namespace {

/// Steps between two words of rank 0 about the length, and two lines of the log.
constexpr std::uint64_t kLogEvery = 10;
/// Drafting for the held-out texts costs more than judging them: seldom, and not for all of them.
constexpr std::uint64_t kShapesEvery = 4;
constexpr std::size_t kTextsBetween = 32;
/// Of --minutes, until the time of a step is known.
constexpr std::uint64_t kUnknownSteps = 1'000'000;

/// Ranks wait for others that feed a group of conversations, and for rank 0's files.
constexpr auto kTrainPatience = std::chrono::minutes(30);

const char* const kShapes[] = {"1x5", "4x4", "8x4", "16x5"};

runtime::TeacherOptions teacher_options(const TrainOptions& options, Deployment& deployment) {
  const auto ranks = static_cast<std::uint64_t>(deployment.world().local_size());
  return {
      .order = {.batch_positions = options.batch_positions,
                .group_positions = options.group_positions,
                .window = 8,
                .seed = options.seed,
                .replicas = deployment.num_replicas(),
                .ranks_per_replica = deployment.tp()},
      .depth = options.depth,
      .depth_share = options.depth_share,
      .bf16 = training_options(options).precision == drafter::GemmPrecision::kBf16,
      .cache_bytes = options.cache_memory > 0 ? options.cache_memory : free_memory() / 4 / ranks,
      .replica = deployment.world().rank() / deployment.tp(),
      .rank = deployment.replica().rank()};
}

}  // namespace

std::vector<std::byte> broadcast_bytes(parallel::Communicator& group, std::vector<std::byte> mine) {
  std::uint64_t size = mine.size();
  group.broadcast(std::as_writable_bytes(std::span(&size, 1)), 0);
  mine.resize(size);
  group.broadcast(mine, 0);
  return mine;
}

// The backend's pool and the trainer's are bound to the same cores: one sleeps while the other
// works.
TrainingLoop::TrainingLoop(const TrainOptions& options, const drafter::DrafterConfig& config,
                           const runtime::SplitConversations& conversations, Context& context,
                           Deployment& deployment)
    : options_(options),
      context_(context),
      deployment_(deployment),
      pool_(deployment.placement().threads, deployment.placement().cpus),
      states_(deployment.model(), deployment.backend(), deployment.cache(),
              options.batch.max_batch_tokens),
      teacher_(conversations, teacher_options(options, deployment), states_) {
  if (writes()) progress_.emplace();
  together(context_.world, [&] { make_trainer(config, deployment); });
  restore();
  if (writes()) {
    log_.emplace(std::filesystem::path(options_.output) / "training_log.jsonl",
                 trainer_->steps_done());
    if (!log_->evaluations().empty()) evaluated_at_ = log_->evaluations().back().step;
    evaluations_ = log_->evaluations().size();
  }
  broadcast(evaluated_at_);
  broadcast(evaluations_);
}

void TrainingLoop::broadcast(std::uint64_t& value) {
  context_.world.all().broadcast(std::as_writable_bytes(std::span(&value, 1)), 0);
}

void TrainingLoop::make_trainer(const drafter::DrafterConfig& config, Deployment& deployment) {
  const runtime::Checkpoint checkpoint = runtime::Checkpoint::open(options_.model.model);
  const runtime::DraftedModel model{options_.model.model, deployment.config(), checkpoint};
  base_output_ = kernels::to_fp32(runtime::base_output_rows(model, config.draft_vocab));
  drafter::TrainingOptions training = training_options(options_);
  std::uint64_t steps = options_.steps;
  if (steps == 0) steps = teacher_.minibatches(std::max<std::uint64_t>(1, options_.epochs));
  if (options_.minutes > 0) steps = kUnknownSteps;
  training.rate.steps = steps;
  training.rate.warmup_steps = std::min<std::uint64_t>(training.rate.warmup_steps, steps / 10);
  trainer_ = std::make_unique<drafter::Trainer>(
      config, training,
      drafter::ConstMatrix{base_output_.data(), config.num_outputs(), config.hidden_size,
                           config.hidden_size},
      teacher_, context_.world.all(), pool_);
  if (!options_.from.empty()) {
    trainer_->start_from(
        runtime::DrafterFiles::open(options_.from, runtime::WeightChoice::kFp32, model));
  }
}

std::filesystem::path TrainingLoop::checkpoint_path() const {
  return std::filesystem::path(options_.output) / "checkpoint.bin";
}

// Rank 0 reads it for all: the others may be on nodes that do not see the file.
void TrainingLoop::restore() {
  if (!options_.resume) return;
  std::vector<std::byte> bytes;
  together(context_.world, [&] {
    if (!writes() || !std::filesystem::exists(checkpoint_path())) return;
    const std::string text = runtime::read_file(checkpoint_path(), std::size_t{1} << 40);
    const auto view = std::as_bytes(std::span(text));
    bytes.assign(view.begin(), view.end());
  });
  bytes = broadcast_bytes(context_.world.all(), std::move(bytes));
  if (bytes.empty()) return;
  drafter::Trainer::Restored restored;
  together(context_.world, [&] {
    std::istringstream stream(
        std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    restored = trainer_->restore(stream, checkpoint_path().string());
  });
  if (!writes()) return;
  progress_->line(fmt::format("goes on behind step {}", trainer_->steps_done()));
  if (!restored.same_arithmetic) {
    progress_->line(fmt::format("note: not bit for bit: begun with {}, goes on with {}",
                                restored.saved_with, trainer_->arithmetic()));
  }
}

std::uint64_t TrainingLoop::next_stop() const {
  const std::uint64_t done = trainer_->steps_done();
  const auto next = [done](std::uint64_t every) { return (done / every + 1) * every; };
  return std::min({total_steps(), next(kLogEvery), next(options_.evaluate_every)});
}

bool TrainingLoop::run() {
  context_.world.enter("train", kTrainPatience);
  began_ = saved_ = Clock::now();
  if (options_.minutes > 0) plan_minutes();
  while (trainer_->steps_done() < total_steps()) {
    const std::uint64_t stop = next_stop();
    trainer_->run(stop, [this](const drafter::StepReport& report) { return progress(report); });
    if (trainer_->steps_done() < stop) {
      checkpoint();
      return false;
    }
    if (options_.minutes > 0) plan_minutes();
    if (stop % options_.evaluate_every == 0 && stop < total_steps()) evaluate(false);
  }
  if (evaluated_at_ < trainer_->steps_done()) evaluate(true);
  checkpoint();
  return true;
}

bool TrainingLoop::progress(const drafter::StepReport& report) {
  if (writes()) {
    log_->count(report);
    if (report.step % kLogEvery == 0) log_->write_step(seconds());
    const std::uint64_t done = trainer_->steps_done();
    const double all = all_seconds();
    const double left = all / static_cast<double>(done) * static_cast<double>(total_steps() - done);
    progress_->step(*log_, total_steps(), left);
    if (Clock::now() - saved_ >
        std::chrono::duration<double, std::ratio<60>>(options_.checkpoint_minutes)) {
      checkpoint();
    }
  }
  return !context_.signals.termination_requested();
}

// As many steps as fit, at the mean time that one took so far: the learning rate then follows the
// clock. Rank 0's clock is everybody's.
void TrainingLoop::plan_minutes() {
  std::uint64_t steps = kUnknownSteps;
  if (writes()) {
    const auto done = trainer_->steps_done();
    const double passed = all_seconds();
    const double share = passed / (60 * options_.minutes);
    if (done > 0) steps = static_cast<std::uint64_t>(static_cast<double>(done) / share) + 1;
    if (done > 0 && share >= 1) steps = done;
    steps = std::min(steps, kUnknownSteps);
  }
  broadcast(steps);
  trainer_->set_total_steps(steps);
}

// Every rank of a replica drafts for all of its texts, as they share the embedding.
std::vector<std::pair<std::string, double>> TrainingLoop::simulate(std::size_t most_texts) {
  const drafter::DrafterConfig& config = trainer_->parameters().config();
  const drafter::TrainedWeights weights(
      trainer_->parameters(),
      {base_output_.data(), config.num_outputs(), config.hidden_size, config.hidden_size},
      saved_format(options_));
  runtime::ModelEmbedding embedding(deployment_.model());
  const auto drafter = drafter::make_drafter(config, weights, embedding, deployment_.backend());
  const auto all = teacher_.held_out_of_replica();
  const auto texts = all.first(std::min(all.size(), most_texts));
  std::vector<std::pair<std::string, double>> shapes;
  for (const char* name : kShapes) {
    const drafter::DraftSimulation mine =
        drafter::simulate_drafts(*drafter, deployment_.backend(), texts, parse_draft_shape(name));
    drafter::DraftSimulation sum;
    const auto of_ranks = gather_values(context_.world.all(), mine);
    for (std::size_t rank = 0; rank < of_ranks.size(); rank += deployment_.tp()) {
      sum.steps += of_ranks[rank].steps;
      sum.tokens += of_ranks[rank].tokens;
    }
    shapes.emplace_back(name, sum.tokens_per_step());
  }
  return shapes;
}

void TrainingLoop::evaluate(bool last) {
  runtime::LoggedEvaluation evaluation;
  evaluation.step = trainer_->steps_done();
  evaluation.result = trainer_->evaluate();
  const auto share = static_cast<std::size_t>(deployment_.num_replicas());
  if (last) {
    evaluation.shapes = simulate(teacher_.held_out_of_replica().size());
  } else if (++evaluations_ % kShapesEvery == 0) {
    evaluation.shapes = simulate((kTextsBetween + share - 1) / share);
  }
  evaluated_at_ = evaluation.step;
  if (!writes()) return;
  log_->write_step(seconds());
  evaluation.positions = log_->positions();
  progress_->evaluation(evaluation);
  log_->write(std::move(evaluation));
}

// What cannot be written ends the job: the ranks are not at one point here.
void TrainingLoop::checkpoint() {
  if (!writes()) return;
  try {
    std::ostringstream stream;
    trainer_->save(stream, checkpoint_path().string());
    runtime::AtomicFile file(checkpoint_path());
    file.write(std::as_bytes(std::span(stream.view())));
    file.commit();
    runtime::write_drafter(options_.output, trainer_->parameters(), saved_format(options_));
  } catch (const ConfigError& error) {
    throw FatalError("{}", error.what());
  }
  log_->write_step(seconds());
  saved_ = Clock::now();
}

}  // namespace paceline::launcher
