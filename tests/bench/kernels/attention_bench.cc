// Times the CPU backend's attention on one thread: a last token and a draft tree behind it (or a
// prompt's chunk) after some context, with the heads and layers of SmolLM2-135M. Takes
// google-benchmark's options. The counter `fma` is multiply-adds of the definition per second.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/api.h"
#include "kernels/core/kv_address.h"

namespace paceline::kernels {
namespace {

constexpr int kLayers = 30;
constexpr int kHeads = 9;
constexpr int kKvHeads = 3;
constexpr int kHeadDim = 64;
constexpr int kPageSize = 64;
constexpr int kStride = (kHeads + 2 * kKvHeads) * kHeadDim;

enum class Rows { kTree, kPrompt };

// One sequence of `context` keys and the rows behind them.
class Step {
 public:
  Step(Backend& backend, KvFormat format, int context, int rows, Rows kind)
      : backend_(backend),
        qkv_(backend.allocate(sizeof(float) * static_cast<std::size_t>(rows) * kStride)),
        out_(backend.allocate(qkv_.bytes())) {
    const int slots = context + rows;
    const int num_pages = (slots + kPageSize - 1) / kPageSize;
    for (int page = 0; page < num_pages; ++page) pages_.push_back(page);
    kv_ = {nullptr, format, kLayers, kKvHeads, kPageSize, kHeadDim, num_pages};
    pool_ = backend.allocate(static_cast<std::size_t>(num_pages) * page_bytes(kv_));
    kv_.data = pool_.as<std::byte>();
    for (int h = 0; h < kHeads; ++h) kv_head_.push_back(h / (kHeads / kKvHeads));
    // A tree's rows hang off each other two by two, as a draft's beams do.
    for (int r = 0; r < rows; ++r) {
      if (kind == Rows::kPrompt) {
        places_.push_back({0, context + r, context + r, context + r + 1, 0});
        continue;
      }
      std::vector<std::int32_t> path;
      for (int node = r; node > 0; node = (node - 1) / 2) path.push_back(context + node);
      path.push_back(context);
      const auto depth = static_cast<std::int32_t>(path.size()) - 1;
      places_.push_back(
          {0, context + depth, context + r, context, static_cast<std::int32_t>(ancestors_.size())});
      ancestors_.insert(ancestors_.end(), path.rbegin(), path.rend());
    }
    fill(context, rows);
    for (const RowPlace& place : places_) fma_ += 2.0 * (place.position + 1) * kHeads * kHeadDim;
  }

  void run() {
    backend_.attention({.qkv = qkv_.as<float>(),
                        .qkv_stride = kStride,
                        .kv = kv_,
                        .layer = layer_++ % kLayers,
                        .num_heads = kHeads,
                        .kv_head = kv_head_.data(),
                        .scale = 1 / std::sqrt(static_cast<float>(kHeadDim)),
                        .rows_at = places_.data(),
                        .ancestors = ancestors_.data(),
                        .page_table = {pages_.data(), std::ssize(pages_)},
                        .out = out_.as<float>(),
                        .rows = std::ssize(places_)});
  }
  double fma() const { return fma_; }

 private:
  // Keys and values of every slot by the op that writes them; then the queries.
  void fill(int context, int rows) {
    const int slots = context + rows;
    std::vector<float> all(static_cast<std::size_t>(slots) * kStride);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : all) value = normal(random);
    std::vector<RowPlace> places;
    for (int slot = 0; slot < slots; ++slot) places.push_back({0, slot, slot, slot + 1, 0});
    const std::vector<float> cos(static_cast<std::size_t>(slots) * kHeadDim / 2, 1.0f);
    const std::vector<float> sin(cos.size(), 0.0f);
    for (int layer = 0; layer < kLayers; ++layer) {
      backend_.rope_append({.qkv = all.data(),
                            .cos = cos.data(),
                            .sin = sin.data(),
                            .kv = kv_,
                            .layer = layer,
                            .num_heads = kHeads,
                            .rows_at = places.data(),
                            .page_table = {pages_.data(), std::ssize(pages_)},
                            .rows = slots});
    }
    backend_.upload(qkv_.as<void>(), all.data(), qkv_.bytes());
  }

  Backend& backend_;
  KvPool kv_;
  Buffer qkv_, out_, pool_;
  std::vector<std::int32_t> pages_, kv_head_, ancestors_;
  std::vector<RowPlace> places_;
  int layer_ = 0;
  double fma_ = 0;
};

void add(Backend& backend, KvFormat format, int context, int rows, Rows kind) {
  const std::string name =
      fmt::format("{}/{}/context {}/{} {} rows", backend.description(), format_name(format),
                  context, rows, kind == Rows::kTree ? "tree" : "prompt");
  benchmark::RegisterBenchmark(name.c_str(), [=, &backend](benchmark::State& state) {
    Step step(backend, format, context, rows, kind);
    for (int layer = 0; layer < kLayers; ++layer) step.run();
    for (auto _ : state) step.run();
    state.counters["fma"] = benchmark::Counter(step.fma() * static_cast<double>(state.iterations()),
                                               benchmark::Counter::kIsRate);
  });
}

}  // namespace
}  // namespace paceline::kernels

int main(int argc, char** argv) {
  using namespace paceline::kernels;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  std::vector<std::unique_ptr<Backend>> backends;
  for (const std::string isa : {"", "avx2"}) {
    backends.push_back(make_cpu_backend({.isa = isa}));
    for (const KvFormat format : {KvFormat::kBf16, KvFormat::kInt8, KvFormat::kFp32}) {
      for (const int context : {32, 330, 2000}) {
        for (const int rows : {1, 4, 8, 16}) {
          add(*backends.back(), format, context, rows, Rows::kTree);
        }
        add(*backends.back(), format, context, 64, Rows::kPrompt);
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
