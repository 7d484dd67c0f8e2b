#include "drafter/training/trainer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <sstream>

#include "drafter/training/byte_stream.h"
#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

constexpr std::string_view kMagic = "paceline training checkpoint 1";
constexpr std::size_t kMostText = 1 << 16;

TrainingOptions checked(const TrainingOptions& options) {
  const LearningRate& rate = options.rate;
  if (!(rate.peak >= 0) || !std::isfinite(rate.peak)) {
    throw ConfigError("the learning rate is {}, expected a number from 0", rate.peak);
  }
  if (!(rate.final_share >= 0 && rate.final_share <= 1)) {
    throw ConfigError("the learning rate's final share is {}, expected 0 to 1", rate.final_share);
  }
  if (options.positions_at_once < 1) {
    throw ConfigError("positions_at_once is {}, expected at least 1", options.positions_at_once);
  }
  return options;
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits: tells apart what differs by accident.
class Fingerprint {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      value_ = (value_ ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3;
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

/// The first line in which two descriptions differ.
std::string difference(const std::string& saved, const std::string& wanted) {
  std::istringstream left(saved), right(wanted);
  std::string a, b;
  while (true) {
    const bool more_left = static_cast<bool>(std::getline(left, a));
    const bool more_right = static_cast<bool>(std::getline(right, b));
    if (!more_left) a = "nothing";
    if (!more_right) b = "nothing";
    if (a != b || (!more_left && !more_right)) {
      return fmt::format("it has \"{}\", this run has \"{}\"", a, b);
    }
  }
}

}  // namespace

Trainer::Trainer(const DrafterConfig& config, const TrainingOptions& options,
                 ConstMatrix base_output, TeacherData& data, parallel::Communicator& group,
                 kernels::ThreadPool& pool)
    : options_(checked(options)),
      data_(data),
      pool_(pool),
      sums_(group),
      gemm_(pool, options.precision),
      parameters_(config),
      gradient_values_(parameters_.layout().size),
      gradients_(view_of(config, parameters_.layout(), gradient_values_)),
      network_(make_network(config, options.loss, base_output, gemm_, pool)),
      optimizer_(options.adamw, parameters_.layout(), pool) {
  parameters_.initialize(options.seed, base_output);
}

StepReport Trainer::step() {
  data_.minibatch(steps_done_, batch_);
  std::fill(gradient_values_.begin(), gradient_values_.end(), 0.0f);
  const std::span<const DraftPosition> positions = batch_.positions;
  LossSums loss;
  for (std::size_t begin = 0; begin < positions.size(); begin += options_.positions_at_once) {
    const std::size_t count =
        std::min<std::size_t>(options_.positions_at_once, positions.size() - begin);
    loss.add(network_->add_gradients(parameters_.tensors(), batch_, positions.subspan(begin, count),
                                     gradients_));
  }
  std::array<double, 3> totals{loss.loss, loss.weight, static_cast<double>(positions.size())};
  sums_.sum(totals);
  sums_.sum(gradient_values_);

  StepReport report;
  report.step = steps_done_ + 1;
  report.learning_rate = options_.rate.at(steps_done_);
  report.positions = totals[2];
  if (totals[1] > 0) {
    report.loss = totals[0] / totals[1];
    report.gradient_norm = optimizer_.update(gradient_values_, 1 / totals[1], report.learning_rate,
                                             parameters_.values());
    check(std::isfinite(report.loss) && std::isfinite(report.gradient_norm),
          "training step {}: the loss is {}, the gradient's norm {}; try a lower learning rate",
          report.step, report.loss, report.gradient_norm);
  }
  ++steps_done_;
  return report;
}

void Trainer::run(std::uint64_t until, kernels::FunctionRef<bool(const StepReport&)> progress) {
  while (steps_done_ < until) {
    const StepReport report = step();
    std::array<double, 1> stops{progress(report) ? 0.0 : 1.0};
    sums_.sum(stops);
    if (stops[0] > 0) return;
  }
}

Evaluation Trainer::evaluate() {
  return drafter::evaluate(*network_, parameters_.tensors(), data_, sums_,
                           options_.positions_at_once);
}

std::string Trainer::arithmetic() const {
  return fmt::format("{} ranks, {}", sums_.group().size(), Gemm::arithmetic());
}

std::string Trainer::description() const {
  const DrafterConfig& config = parameters_.config();
  Fingerprint vocab;
  vocab.add(std::as_bytes(std::span(config.draft_vocab)));
  const LossOptions& loss = options_.loss;
  const AdamWOptions& adamw = options_.adamw;
  const LearningRate& rate = options_.rate;
  std::string text =
      fmt::format("precision: {}\n", options_.precision == GemmPrecision::kBf16 ? "bf16" : "fp32");
  if (config.kind == DrafterKind::kMedusa) text += fmt::format("heads: {}\n", config.num_heads);
  text += fmt::format(
      "vocab_size: {}\nhidden_size: {}\nexit_dim: {}\nnum_draft_layers: {}\nrnn: {}\n"
      "tied_head: {}\ndraft_vocab: {} tokens, fingerprint {:016x}\n",
      config.vocab_size, config.hidden_size, config.exit_dim, config.num_draft_layers, config.rnn,
      config.tied_head, config.num_outputs(), vocab.value());
  text += fmt::format("teacher_share: {}\ndepth_weights: {}\n", loss.teacher_share,
                      fmt::join(loss.depth_weights, " "));
  text += fmt::format("betas: {} {}\nepsilon: {}\nweight_decay: {}\nmax_gradient_norm: {}\n",
                      adamw.beta1, adamw.beta2, adamw.epsilon, adamw.weight_decay,
                      adamw.max_gradient_norm);
  text += fmt::format("learning_rate: {}\nfinal_share: {}\nwarmup_steps: {}\n", rate.peak,
                      rate.final_share, rate.warmup_steps);
  text += fmt::format("seed: {}\npositions_at_once: {}\ndata: {}\n", options_.seed,
                      options_.positions_at_once, data_.identity());
  return text;
}

void Trainer::save(std::ostream& stream, const std::string& target) const {
  ByteWriter to(stream, target);
  to.text(kMagic);
  to.text(description());
  to.text(arithmetic());
  to.number(steps_done_);
  to.number(options_.rate.steps);
  to.floats(parameters_.values());
  optimizer_.save(to);
}

Trainer::Restored Trainer::restore(std::istream& stream, const std::string& source) {
  ByteReader from(stream, source);
  if (from.text("its first line", kMostText) != kMagic) {
    throw ConfigError("{}: is not a {}", source, kMagic);
  }
  const std::string saved = from.text("its options", kMostText);
  if (saved != description()) {
    throw ConfigError("{}: was made with other options: {}", source,
                      difference(saved, description()));
  }
  Restored restored;
  restored.saved_with = from.text("its arithmetic", kMostText);
  restored.same_arithmetic = restored.saved_with == arithmetic();
  steps_done_ = from.number("its steps");
  options_.rate.steps = from.number("the schedule's length");
  from.floats("its weights", parameters_.values());
  optimizer_.restore(from);
  from.end();
  check_ranks_agree(source);
  return restored;
}

void Trainer::check_ranks_agree(const std::string& source) {
  Fingerprint mine;
  mine.add(std::as_bytes(std::span(&steps_done_, 1)));
  mine.add(std::as_bytes(parameters_.values()));
  parallel::Communicator& group = sums_.group();
  const std::uint64_t value = mine.value();
  std::vector<std::uint64_t> all(group.size());
  group.all_gather(std::as_bytes(std::span(&value, 1)), std::as_writable_bytes(std::span(all)),
                   std::vector<std::size_t>(all.size(), sizeof value));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] != all[0]) {
      throw ConfigError("{}: rank {} of the training has read another checkpoint than rank 0",
                        source, rank);
    }
  }
}

}  // namespace paceline::drafter
