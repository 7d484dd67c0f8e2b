#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "drafter/training/trainer.h"
#include "kernels/core/thread_pool.h"
#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "launcher/train_options.h"
#include "launcher/training_progress.h"
#include "runtime/training/teacher.h"
#include "runtime/training/training_log.h"

namespace paceline::launcher {

/// Bytes of rank 0 on every rank.
std::vector<std::byte> broadcast_bytes(parallel::Communicator& group, std::vector<std::byte> mine);

/// The training itself, on the loaded model and all conversations: steps, evaluations, checkpoints,
/// the drafter's files. Every rank has one and calls the same; rank 0 has the files.
class TrainingLoop {
 public:
  /// `config` as the options and the data say. All that is passed by reference must outlive it.
  TrainingLoop(const TrainOptions& options, const drafter::DrafterConfig& config,
               const runtime::SplitConversations& conversations, Context& context,
               Deployment& deployment);

  /// To the end, or until a signal asks for it. True: to the end.
  bool run();

  const drafter::Trainer& trainer() const { return *trainer_; }
  /// Rank 0's; null on others.
  const runtime::TrainingLog* log() const { return log_ ? &*log_ : nullptr; }
  /// Of this run and those before it; rank 0's.
  double all_seconds() const { return log_->seconds_before() + seconds(); }

 private:
  using Clock = std::chrono::steady_clock;

  void make_trainer(const drafter::DrafterConfig& config, Deployment& deployment);
  void restore();
  void broadcast(std::uint64_t& value);  // rank 0's
  bool progress(const drafter::StepReport& report);
  void plan_minutes();
  void evaluate(bool last);
  std::vector<std::pair<std::string, double>> simulate(std::size_t most_texts);
  void checkpoint();
  std::uint64_t next_stop() const;
  std::uint64_t total_steps() const { return trainer_->options().rate.steps; }
  bool writes() const { return context_.world.rank() == 0; }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }
  std::filesystem::path checkpoint_path() const;

  const TrainOptions& options_;
  Context& context_;
  Deployment& deployment_;
  kernels::ThreadPool pool_;
  runtime::HiddenStates states_;
  runtime::EngineTeacher teacher_;
  std::vector<float> base_output_;  // [outputs, hidden]
  std::unique_ptr<drafter::Trainer> trainer_;
  std::optional<runtime::TrainingLog> log_;
  std::optional<TrainingProgress> progress_;
  std::uint64_t evaluations_ = 0;   // made so far
  std::uint64_t evaluated_at_ = 0;  // step of the last evaluation
  Clock::time_point began_ = Clock::now();
  Clock::time_point saved_ = Clock::now();
};

}  // namespace paceline::launcher
