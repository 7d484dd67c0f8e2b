#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <tuple>

#include "kernels/core/sampling.h"
#include "tests/runtime/engine/rule_drafters.h"
#include "tests/runtime/files/safetensors_text.h"
#include "tests/statistics/chi_square.h"
#include "tests/temporary_directory.h"

// What is sampled while drafts are verified follows the model's own distribution: chi-square of
// 120,000 draws from nodes of trees against exact probabilities.

namespace paceline::runtime {
namespace {

using statistics::chi_square;

constexpr int kVocab = 8;
constexpr int kLength = 4;  // tokens of an answer: the first is not drafted, the others are
constexpr int kAnswers = 40000;
#ifdef __SANITIZE_ADDRESS__
constexpr int kRequests = 4000;  // slow, and about memory
#else
constexpr int kRequests = kAnswers;
#endif

/// A model of eight tokens, small enough that every answer's probability can be computed.
class EightTokenModel {
 public:
  EightTokenModel() {
    directory_.write("config.json", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
      "hidden_size": 16, "head_dim": 8, "intermediate_size": 16, "max_position_embeddings": 64,
      "num_attention_heads": 2, "num_hidden_layers": 1, "num_key_value_heads": 1,
      "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
      "torch_dtype": "float32", "vocab_size": 8})");
    const std::string layer = "model.layers.0.";
    directory_.write(
        "model.safetensors",
        safetensors_text(
            {tensor("model.embed_tokens", {8, 16}), tensor(layer + "input_layernorm", {16}),
             tensor(layer + "self_attn.q_proj", {16, 16}),
             tensor(layer + "self_attn.k_proj", {8, 16}),
             tensor(layer + "self_attn.v_proj", {8, 16}),
             tensor(layer + "self_attn.o_proj", {16, 16}),
             tensor(layer + "post_attention_layernorm", {16}),
             tensor(layer + "mlp.gate_proj", {16, 16}), tensor(layer + "mlp.up_proj", {16, 16}),
             tensor(layer + "mlp.down_proj", {16, 16}), tensor("model.norm", {16}),
             tensor("lm_head", {8, 16})}));
  }
  std::string path() const { return directory_.path().string(); }

 private:
  TensorToWrite tensor(const std::string& name, std::vector<std::int64_t> shape) {
    const auto count =
        std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) {
      value = static_cast<float>(random_() % 2001) / 1000.0f - 1.0f;  // -1 to 1
      if (shape.size() == 1) value = 1 + 0.25f * value;               // a norm's weights
      if (name == "lm_head") value *= 0.5f;
    }
    std::string data(values.size() * sizeof(float), '\0');
    std::memcpy(data.data(), values.data(), data.size());
    return {name + ".weight", StoredType::kF32, std::move(shape), std::move(data)};
  }
  std::mt19937 random_{5};
  TemporaryDirectory directory_;
};

using Logits = std::array<float, kVocab>;
/// After every sequence of 1 to kLength tokens that begins with the prompt, token 0.
using LogitsAfter = std::map<Ids, Logits>;

/// Calls `visit` with every answer of `length` tokens.
template <typename Visit>
void for_every_answer(int length, const Visit& visit) {
  Ids answer(static_cast<std::size_t>(length), 0);
  for (bool more = true; more;) {
    visit(answer);
    more = false;
    for (std::int32_t& token : answer) {
      more = ++token < kVocab;
      if (more) break;
      token = 0;
    }
  }
}

LogitsAfter logits_of(const EightTokenModel& model) {
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank rank(model.path(), {}, *backend, *single);
  LogitsAfter after;
  for_every_answer(kLength - 1, [&](Ids tokens) {
    tokens.insert(tokens.begin(), 0);
    const std::vector<float> logits = sequence_logits(rank, *backend, tokens, kLength);
    for (int i = 0; i < kLength; ++i) {
      Logits& row = after[Ids(tokens.begin(), tokens.begin() + i + 1)];
      std::copy_n(logits.begin() + i * kVocab, kVocab, row.begin());
    }
  });
  return after;
}

struct Sampling {
  const char* name = "";
  float temperature = 1;
  std::int32_t top_k = 0;
  float top_p = 1;
};

void PrintTo(const Sampling& sampling, std::ostream* out) { *out << sampling.name; }

/// Temperature, then top-k, then top-p over what is left: probabilities of all tokens.
std::array<double, kVocab> probabilities(const Logits& logits, const Sampling& sampling) {
  std::array<double, kVocab> weight;
  std::array<int, kVocab> order;
  for (int id = 0; id < kVocab; ++id) {
    weight[id] = std::exp(static_cast<double>(logits[id]) / sampling.temperature);
    order[id] = id;
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return weight[a] > weight[b]; });
  const int most = sampling.top_k > 0 ? sampling.top_k : kVocab;
  double total = 0;
  for (int i = 0; i < most; ++i) total += weight[order[i]];
  int kept = 0;
  for (double mass = 0; kept < most && (kept == 0 || mass < sampling.top_p * total); ++kept) {
    mass += weight[order[kept]];
  }
  double kept_total = 0;
  for (int i = 0; i < kept; ++i) kept_total += weight[order[i]];
  std::array<double, kVocab> result{};
  for (int i = 0; i < kept; ++i) result[order[i]] = weight[order[i]] / kept_total;
  return result;
}

/// Counts and probabilities of whole answers, and of the token at each place.
class Distribution {
 public:
  Distribution(const LogitsAfter& after, const Sampling& sampling) {
    for_every_answer(kLength, [&](const Ids& answer) {
      double probability = 1;
      for (int i = 0; i < kLength; ++i) {
        Ids before(answer.begin(), answer.begin() + i);
        before.insert(before.begin(), 0);
        probability *= probabilities(after.at(before), sampling)[answer[i]];
      }
      for (int view = 0; view <= kLength; ++view) cell(exact_[view], view, answer) += probability;
    });
  }
  void count(const Ids& answer) {
    ASSERT_EQ(answer.size(), kLength);
    for (int view = 0; view <= kLength; ++view) ++cell(counts_[view], view, answer);
  }
  /// How well the worst of the views fits.
  double p_value() const {
    double least = 1;
    for (int view = 0; view <= kLength; ++view) {
      least = std::min(least, chi_square(counts_[view], exact_[view]).p_value);
    }
    return least;
  }

 private:
  /// Views 0 to kLength - 1: the token at that place. View kLength: the whole answer.
  template <typename T>
  static T& cell(std::vector<T>& cells, int view, const Ids& answer) {
    std::size_t index = 0;
    if (view < kLength) {
      index = static_cast<std::size_t>(answer[view]);
    } else {
      for (const std::int32_t token : answer) index = index * kVocab + token;
    }
    if (cells.size() <= index) cells.resize(index + 1);
    return cells[index];
  }
  std::array<std::vector<double>, kLength + 1> exact_;
  std::array<std::vector<std::int64_t>, kLength + 1> counts_;
};

std::uint64_t seed_of(int request) { return 1'000'000 + static_cast<std::uint64_t>(request); }

/// Knows the model roughly: its logits to the next half, and nothing of top-k and top-p. At every
/// depth it guesses the two tokens that the shared noise makes likeliest, and goes on from the
/// first of them.
class RoughDrafter final : public RuleDrafter {
 public:
  explicit RoughDrafter(const LogitsAfter& after) : after_(after) {}

 private:
  void guess(const drafter::DraftRequest& request, std::int32_t n,
             drafter::TokenTree& tree) override {
    const std::int32_t depth = n / 2;
    if (n % 2 == 1 || depth >= request.shape.depth) return;
    Ids known(request.tokens.begin(), request.tokens.end());
    const std::int32_t parent = n == 0 ? drafter::TreeNode::kRoot : n - 2;
    for (std::int32_t d = 0; d < depth; ++d) known.push_back(tree.nodes()[2 * d].token);
    kernels::SamplingRow row = request.sampling;
    row.index += static_cast<std::uint64_t>(depth);
    std::array<double, kVocab> scores;
    for (std::uint32_t id = 0; id < kVocab; ++id) {
      const float rough = std::round(2 * after_.at(known)[id]) / 2;
      scores[id] = rough / row.temperature + kernels::sampling_noise(row, id);
    }
    const auto best = std::max_element(scores.begin(), scores.end());
    tree.add(parent, static_cast<std::int32_t>(best - scores.begin()), 0, 0);
    *best = -std::numeric_limits<double>::infinity();
    const auto second = std::max_element(scores.begin(), scores.end());
    if (n + 1 < request.shape.max_nodes) {
      tree.add(parent, static_cast<std::int32_t>(second - scores.begin()), 0, 0);
    }
  }
  const LogitsAfter& after_;
};

class SampledDistribution : public testing::TestWithParam<Sampling> {
 protected:
  static void SetUpTestSuite() {
    model_ = std::make_unique<EightTokenModel>();
    after_ = std::make_unique<LogitsAfter>(logits_of(*model_));
  }
  static void TearDownTestSuite() {
    after_.reset();
    model_.reset();
  }
  static inline std::unique_ptr<EightTokenModel> model_;
  static inline std::unique_ptr<LogitsAfter> after_;
};

INSTANTIATE_TEST_SUITE_P(Parameters, SampledDistribution,
                         testing::Values(Sampling{"T1", 1.0f, 0, 1.0f},
                                         Sampling{"T07", 0.7f, 0, 1.0f},
                                         Sampling{"T1TopK5", 1.0f, 5, 1.0f},
                                         Sampling{"T07TopP08", 0.7f, 0, 0.8f},
                                         Sampling{"T1TopK6TopP09", 1.0f, 6, 0.9f}));

TEST_P(SampledDistribution, IsTheModelsOwnWithTheDrafterOn) {
  const Sampling& sampling = GetParam();
  Distribution distribution(*after_, sampling);
  constexpr SchedulerLimits kLimits{.max_sequences = 256,
                                    .max_rows = 3000,
                                    .page_size = kPageSize,
                                    .num_pages = 256,
                                    .max_sampled = 3000};
  const auto backend = kernels::make_cpu_backend({.threads = 2});
  const auto single = parallel::make_single();
  RoughDrafter rough(*after_);
  FixtureRank rank(model_->path(), {.limits = kLimits}, *backend, *single,
                   {.drafter = &rough, .shape = {2, kLength, 0}});
  std::vector<EngineRequest> requests(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    requests[i].uid = static_cast<std::uint64_t>(i);
    requests[i].prompt = {0};
    requests[i].max_new_tokens = kLength;
    requests[i].temperature = sampling.temperature;
    requests[i].top_k = sampling.top_k;
    requests[i].top_p = sampling.top_p;
    requests[i].seed = seed_of(i);
  }
  for (const auto& [uid, answer] : run_to_end(rank.engine(), requests)) distribution.count(answer);
  EXPECT_GT(distribution.p_value(), 1e-4);

  // Most draws were guessed, some of them wrongly.
  const EngineStats stats = rank.engine().stats();
  const auto share = [&](std::size_t depth) {
    return static_cast<double>(stats.accepted_at[depth]) /
           static_cast<double>(stats.drafted_at[depth]);
  };
  EXPECT_GE(stats.drafted_at[0], kRequests);
  EXPECT_EQ(stats.drafted_at[1], kRequests);
  EXPECT_GT(share(0), 0.6);
  EXPECT_LT(share(0), 0.999);
  EXPECT_GT(share(1), 0.4);
}

// The control: were the likeliest token accepted though it falls short by a seventh of a unit of
// noise, the same statistic would tell.
TEST_P(SampledDistribution, AGuessAcceptedTooGladlyWouldBeFound) {
  const Sampling& sampling = GetParam();
  Distribution fair(*after_, sampling), biased(*after_, sampling);
  for (int i = 0; i < kAnswers; ++i) {
    for (const double favour : {0.0, 0.15}) {
      Ids known = {0};
      while (known.size() <= kLength) {
        const kernels::SamplingRow row{.seed = seed_of(i), .index = known.size()};
        const auto exact = probabilities(after_->at(known), sampling);
        const auto likeliest = std::max_element(exact.begin(), exact.end()) - exact.begin();
        std::int32_t chosen = -1;
        double best = -std::numeric_limits<double>::infinity();
        for (std::int32_t id = 0; id < kVocab; ++id) {
          if (exact[id] == 0) continue;
          const double score = std::log(exact[id]) + (id == likeliest ? favour : 0) +
                               kernels::sampling_noise(row, static_cast<std::uint32_t>(id));
          if (score > best) std::tie(best, chosen) = std::tuple(score, id);
        }
        known.push_back(chosen);
      }
      known.erase(known.begin());
      (favour == 0 ? fair : biased).count(known);
    }
  }
  EXPECT_GT(fair.p_value(), 1e-4);
  EXPECT_LT(biased.p_value(), 1e-9);
}

}  // namespace
}  // namespace paceline::runtime
