#include "drafter/training/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "tests/drafter/training/random_numbers.h"

namespace paceline::drafter {
namespace {

using ::testing::ElementsAre;
using Vector = std::vector<double>;

/// The head and its loss in double, one position and one step after the other: slow and obvious.
class SlowNetwork {
 public:
  SlowNetwork(const DrafterConfig& config, const LossOptions& loss, std::vector<float> base_output)
      : config_(config),
        loss_(loss),
        layout_(layout_of(config)),
        base_(base_output.begin(), base_output.end()) {}

  Vector parameters;

  /// The summed loss; `ranks` gets those of each step, INT32_MAX where there is none.
  double loss(const TeacherRows& text, const std::vector<DraftPosition>& positions,
              std::vector<std::int32_t>* ranks = nullptr) const {
    double total = 0;
    for (const DraftPosition& position : positions) {
      Vector state(config_.hidden_size);
      for (int step = 0; step < loss_.depth(); ++step) {
        if (ranks != nullptr) ranks->push_back(INT32_MAX);
        if (step >= position.steps) continue;
        if (config_.kind == DrafterKind::kRecurrent) {
          state = next_state(row(text.next_embedding, position.row + step), state, step == 0);
        }
        const int target = draft_index(text.next_token[position.row + step + 1]);
        if (target < 0) continue;
        const Vector hidden = row(text.hidden, position.row);
        const Vector logits =
            config_.kind == DrafterKind::kMedusa ? medusa_head(hidden, step) : head(hidden, state);
        const Vector teacher = multiply(base_, row(text.hidden, position.row + step + 1));
        total += loss_.depth_weights[step] * pair_loss(teacher, logits, target);
        if (ranks != nullptr) {
          ranks->back() = static_cast<std::int32_t>(std::count_if(
              logits.begin(), logits.end(), [&](double logit) { return logit > logits[target]; }));
        }
      }
    }
    return total;
  }

 private:
  Vector row(const std::vector<float>& values, std::int64_t index) const {
    const auto begin = values.begin() + index * config_.hidden_size;
    return Vector(begin, begin + config_.hidden_size);
  }
  Vector tensor(const std::string& name) const {
    const TensorPlace& place = layout_.at(name);
    const auto begin = parameters.begin() + place.offset;
    return Vector(begin, begin + place.size);
  }
  /// weight [n, k] times x [k]
  static Vector multiply(const Vector& weight, const Vector& x) {
    Vector y(weight.size() / x.size());
    for (std::size_t i = 0; i < y.size(); ++i) {
      for (std::size_t k = 0; k < x.size(); ++k) y[i] += weight[i * x.size() + k] * x[k];
    }
    return y;
  }
  static Vector sum(Vector a, const Vector& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  }
  static Vector silu(Vector x) {
    for (double& value : x) value /= 1 + std::exp(-value);
    return x;
  }
  Vector linear(const std::string& name, const Vector& x) const {
    return sum(multiply(tensor(name + ".weight"), x), tensor(name + ".bias"));
  }

  Vector next_state(const Vector& embedding, const Vector& state, bool first) const {
    if (!config_.rnn) return first ? embedding : sum(embedding, state);
    return silu(sum(multiply(tensor("rnn_w.weight"), embedding), linear("rnn_u", state)));
  }
  Vector head(Vector hidden, const Vector& state) const {
    Vector x = hidden;
    x.insert(x.end(), state.begin(), state.end());
    if (config_.has_input_projection()) x = linear("input_proj", x);
    for (int l = 0; l < config_.num_draft_layers; ++l) {
      x = sum(x, silu(linear("lm_head." + std::to_string(l) + ".linear", x)));
    }
    if (config_.tied_head) return multiply(base_, x);
    return multiply(tensor("lm_head." + std::to_string(config_.num_draft_layers) + ".weight"), x);
  }
  Vector medusa_head(Vector x, int head) const {
    const std::string name = std::to_string(head) + ".";
    for (int l = 0; l < config_.num_draft_layers; ++l) {
      x = sum(x, silu(linear(name + std::to_string(l) + ".linear", x)));
    }
    if (config_.tied_head) return multiply(base_, x);
    return multiply(tensor(name + std::to_string(config_.num_draft_layers) + ".weight"), x);
  }
  static Vector log_softmax(Vector logits) {
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    for (double& logit : logits) logit -= std::log(total);
    return logits;
  }
  double pair_loss(const Vector& teacher, const Vector& logits, int target) const {
    const Vector log_p = log_softmax(teacher), log_q = log_softmax(logits);
    double divergence = 0;
    for (std::size_t i = 0; i < log_p.size(); ++i) {
      divergence += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
    }
    return loss_.teacher_share * divergence - (1 - loss_.teacher_share) * log_q[target];
  }
  int draft_index(std::int32_t token) const {
    for (std::int32_t r = 0; r < config_.num_outputs(); ++r) {
      if (config_.token_of(r) == token) return r;
    }
    return -1;
  }

  DrafterConfig config_;
  LossOptions loss_;
  HeadLayout layout_;
  Vector base_;
};

constexpr std::int64_t kHidden = 5;

DrafterConfig config_of(bool rnn, std::int64_t exit_dim, std::int64_t layers) {
  DrafterConfig config;
  config.vocab_size = 11;
  config.hidden_size = kHidden;
  config.exit_dim = exit_dim;
  config.num_draft_layers = layers;
  config.rnn = rnn;
  config.draft_vocab = {0, 1, 2, 4, 5, 7, 8, 9, 10};
  return config;
}

/// Nine rows; tokens 3 and 6, which cannot be drafted, among them; positions that share rows, one
/// that comes twice, and ones with fewer steps than the depth.
struct Example {
  TeacherRows text;
  std::vector<DraftPosition> positions{{0, 3}, {1, 3}, {3, 2}, {5, 3}, {5, 3}, {6, 1}, {8, 0}};

  Example() {
    RandomNumbers random(11);
    text.rows = 9;
    text.hidden = random.vector(9 * kHidden, 2);
    text.next_embedding = random.vector(9 * kHidden);
    text.next_token = {4, 8, 3, 0, 10, 1, 6, 9, 4};
  }
};

struct Case {
  DrafterConfig config;
  LossOptions loss;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  float share = 0;
  for (const bool rnn : {true, false}) {
    for (const std::int64_t exit_dim : {2 * kHidden, kHidden, kHidden + 2, kHidden - 2}) {
      for (const std::int64_t layers : {0, 1, 2}) {
        LossOptions loss;
        loss.depth_weights = {1.0f, 0.5f, 0.75f};
        loss.teacher_share = share;
        share = share == 1 ? 0 : share + 0.5f;
        all.push_back({config_of(rnn, exit_dim, layers), loss});
      }
    }
  }
  Case tied = all[4];
  tied.config.tied_head = true;
  all.push_back(tied);
  for (const std::int64_t layers : {0, 1, 2}) {
    Case medusa = all[static_cast<std::size_t>(layers)];
    medusa.config = config_of(false, kHidden, layers);
    medusa.config.kind = DrafterKind::kMedusa;
    medusa.config.num_heads = medusa.loss.depth();
    all.push_back(medusa);
    medusa.config.tied_head = true;
    if (layers == 2) all.push_back(medusa);
  }
  Case depth_one = all[5];
  depth_one.loss.depth_weights = {2.0f};
  all.push_back(depth_one);
  return all;
}

std::string name_of(const Case& c) {
  return fmt::format("{}, rnn {}, exit_dim {}, {} blocks, tied {}, teacher's share {}, depth {}",
                     kind_name(c.config.kind), c.config.rnn, c.config.exit_dim,
                     c.config.num_draft_layers, c.config.tied_head, c.loss.teacher_share,
                     c.loss.depth());
}

/// The positions of the example as far as a depth goes.
std::vector<DraftPosition> positions_of(const Example& example, int depth) {
  std::vector<DraftPosition> positions = example.positions;
  for (DraftPosition& position : positions) position.steps = std::min(position.steps, depth);
  return positions;
}

struct Gradients {
  LossSums sums;
  std::vector<float> values;
};

/// One call over all of the example's positions, with weights from a seed.
class NetworkRun {
 public:
  explicit NetworkRun(const Case& c, int threads = 2)
      : base(RandomNumbers(7).vector(c.config.num_outputs() * kHidden)),
        parameters(c.config),
        positions(positions_of(example, c.loss.depth())),
        pool_(threads),
        gemm_(pool_),
        network(make_network(c.config, c.loss, const_matrix(base, kHidden), gemm_, pool_)) {
    const std::vector<float> values = RandomNumbers(8).vector(parameters.layout().size, 0.7f);
    std::copy(values.begin(), values.end(), parameters.values().begin());
  }

  Gradients add_gradients(std::span<const DraftPosition> some, std::vector<float> before = {}) {
    before.resize(parameters.layout().size);
    Gradients run{{}, std::move(before)};
    HeadTensors gradients = view_of(parameters.config(), parameters.layout(), run.values);
    run.sums = network->add_gradients(parameters.tensors(), example.text, some, gradients);
    return run;
  }

  Example example;
  std::vector<float> base;
  HeadParameters parameters;
  std::vector<DraftPosition> positions;

 private:
  kernels::ThreadPool pool_;
  Gemm gemm_;

 public:
  std::unique_ptr<HeadNetwork> network;
};

TEST(HeadNetwork, LossAndRanksAreTheSlowOnes) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(name_of(c));
    NetworkRun run(c);
    SlowNetwork slow(c.config, c.loss, run.base);
    slow.parameters.assign(run.parameters.values().begin(), run.parameters.values().end());
    std::vector<std::int32_t> slow_ranks;
    const double expected = slow.loss(run.example.text, run.positions, &slow_ranks);
    EXPECT_NEAR(run.add_gradients(run.positions).sums.loss, expected, 1e-5 * expected);
    std::vector<std::int32_t> ranks(slow_ranks.size());
    const LossSums sums =
        run.network->evaluate(run.parameters.tensors(), run.example.text, run.positions, ranks);
    EXPECT_NEAR(sums.loss, expected, 1e-5 * expected);
    EXPECT_EQ(ranks, slow_ranks);
  }
}

TEST(HeadNetwork, GradientsAreTheSlowOnesDifferences) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(name_of(c));
    NetworkRun run(c);
    const std::vector<float> gradients = run.add_gradients(run.positions).values;
    SlowNetwork slow(c.config, c.loss, run.base);
    slow.parameters.assign(run.parameters.values().begin(), run.parameters.values().end());
    for (const TensorPlace& place : run.parameters.layout().tensors) {
      double largest = 0, largest_error = 0;
      for (std::int64_t i = place.offset; i < place.offset + place.size; ++i) {
        constexpr double kStep = 1e-5;
        const double value = slow.parameters[i];
        slow.parameters[i] = value + kStep;
        const double above = slow.loss(run.example.text, run.positions);
        slow.parameters[i] = value - kStep;
        const double below = slow.loss(run.example.text, run.positions);
        slow.parameters[i] = value;
        const double difference = (above - below) / (2 * kStep);
        largest = std::max(largest, std::abs(difference));
        largest_error = std::max(largest_error, std::abs(gradients[i] - difference));
      }
      EXPECT_LT(largest_error, 1e-5 * largest + 1e-6) << place.name;
      // A depth of one never reads a state that it has made.
      const bool idle = place.name == "rnn_u.weight" && c.loss.depth() == 1;
      EXPECT_EQ(largest > 1e-3, !idle) << place.name;
    }
  }
}

TEST(HeadNetwork, CountsThePairsThatCanBeDrafted) {
  NetworkRun run(cases()[0]);
  // Tokens after rows 1 ... 8: 8 [3] 0 10 1 [6] 9 4. From row 0: 8, masked, 0.
  EXPECT_DOUBLE_EQ(run.add_gradients(std::vector<DraftPosition>{{0, 3}}).sums.weight, 1.0 + 0.75);
  EXPECT_DOUBLE_EQ(run.add_gradients(std::vector<DraftPosition>{{3, 2}}).sums.weight, 1.0 + 0.5);
  EXPECT_DOUBLE_EQ(run.add_gradients(std::vector<DraftPosition>{{1, 1}}).sums.weight, 0);
  EXPECT_DOUBLE_EQ(run.add_gradients({}).sums.weight, 0);
}

TEST(HeadNetwork, GradientsAddUp) {
  NetworkRun run(cases()[8]);
  const std::span<const DraftPosition> positions = run.positions;
  const Gradients whole = run.add_gradients(positions);
  const Gradients first = run.add_gradients(positions.first(3));
  const Gradients both = run.add_gradients(positions.subspan(3), first.values);
  EXPECT_DOUBLE_EQ(first.sums.weight + both.sums.weight, whole.sums.weight);
  for (std::size_t i = 0; i < whole.values.size(); ++i) {
    EXPECT_NEAR(both.values[i], whole.values[i], 1e-5);
  }
}

/// The first of a kind with a block.
Case case_of(DrafterKind kind) {
  const std::vector<Case> all = cases();
  return *std::find_if(all.begin(), all.end(), [&](const Case& c) {
    return c.config.kind == kind && c.config.num_draft_layers > 0;
  });
}

TEST(HeadNetwork, TheSameBitsWhateverTheThreads) {
  for (const Case& c : {cases()[8], case_of(DrafterKind::kMedusa)}) {
    const std::vector<float> one = NetworkRun(c, 1).add_gradients(Example().positions).values;
    EXPECT_EQ(NetworkRun(c, 2).add_gradients(Example().positions).values, one);
    EXPECT_EQ(NetworkRun(c, 5).add_gradients(Example().positions).values, one);
  }
}

// A head whose step no position reaches, or whose tokens are all masked, gets no gradient.
TEST(HeadNetwork, AMedusaHeadLearnsFromItsOwnStepAlone) {
  const Case c = case_of(DrafterKind::kMedusa);
  NetworkRun run(c);
  const std::vector<float> gradients =
      run.add_gradients(std::vector<DraftPosition>{{0, 3}}).values;  // after row 2 a masked token
  for (const TensorPlace& place : run.parameters.layout().tensors) {
    const auto begin = gradients.begin() + place.offset;
    const bool zero = std::all_of(begin, begin + place.size, [](float x) { return x == 0; });
    EXPECT_EQ(zero, place.name.starts_with("1.")) << place.name;
  }
}

TEST(HeadNetwork, RefusesPositionsOutsideTheText) {
  NetworkRun run(cases()[0]);
  EXPECT_THROW(run.add_gradients(std::vector<DraftPosition>{{6, 3}}), FatalError);
  EXPECT_THROW(run.add_gradients(std::vector<DraftPosition>{{-1, 1}}), FatalError);
  EXPECT_THROW(run.add_gradients(std::vector<DraftPosition>{{0, 4}}), FatalError);
  run.example.text.next_token[0] = 11;
  EXPECT_THROW(run.add_gradients(std::vector<DraftPosition>{{0, 1}}), FatalError);
}

TEST(HeadNetwork, RefusesLossesThatAreNone) {
  Case c = cases()[0];
  c.loss.depth_weights = {};
  EXPECT_THROW(NetworkRun{c}, ConfigError);
  c.loss.depth_weights = {1, -1};
  EXPECT_THROW(NetworkRun{c}, ConfigError);
  c.loss.depth_weights = {1};
  c.loss.teacher_share = 1.5f;
  EXPECT_THROW(NetworkRun{c}, ConfigError);
  Case medusa = case_of(DrafterKind::kMedusa);
  medusa.loss.depth_weights = {1, 1};
  EXPECT_THROW(NetworkRun{medusa}, ConfigError);
}

}  // namespace
}  // namespace paceline::drafter
