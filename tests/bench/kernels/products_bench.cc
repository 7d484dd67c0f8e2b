// What the contract costs: times each product of the CPU backend, on one thread, against the same
// product in any order and any tile (free_products.h) and, for float formats, against oneDNN. Takes
// google-benchmark's options; prints one line for each format, matrix and number of rows, of
// weights that are in the cache and of such that come from memory.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "free_products.h"
#include "kernels/api.h"
#include "kernels/core/error.h"
#include "library_products.h"

namespace paceline::kernels {
namespace {

// SmolLM2-135M's: q, k and v together, and the FFN's way down, cut as its 8 shards are.
struct Shape {
  std::int64_t n;
  std::int64_t k;
  bool row_parallel;
};
constexpr Shape kShapes[] = {{960, 576, false}, {576, 1536, true}};
constexpr std::int64_t kRows[] = {1, 2, 4, 8, 16, 64, 512};
constexpr WeightFormat kFormats[] = {WeightFormat::kInt4Group,   WeightFormat::kInt8Group,
                                     WeightFormat::kInt8Channel, WeightFormat::kBf16,
                                     WeightFormat::kFp16,        WeightFormat::kFp32};

Reduction reduction_of(const Shape& shape) {
  if (!shape.row_parallel) return Reduction::whole(shape.k);
  Reduction reduction;
  constexpr int kMerges[] = {0, 1, 0, 2, 0, 1, 0, 3};
  for (int shard = 0; shard < 8; ++shard) {
    const std::int64_t width = shape.k / 8;
    reduction.segments.push_back({{shard * width, (shard + 1) * width}, kMerges[shard]});
  }
  return reduction;
}

std::vector<float> random_floats(std::int64_t count, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// A matrix, what its products read and write, and enough copies that none is in the cache when its
// turn comes.
class Operands {
 public:
  Operands(Backend& backend, WeightFormat format, const Shape& shape, bool from_memory)
      : weight(random_floats(shape.n * shape.k, 0.05f, 1)),
        in(random_floats(kRows[std::size(kRows) - 1] * shape.k, 1, 2)),
        out(static_cast<std::size_t>(kRows[std::size(kRows) - 1] * shape.n)) {
    constexpr std::size_t kOutOfCache = std::size_t{96} << 20;
    HostMatrix host{WeightFormat::kFp32, shape.n, shape.k, {}, {}, {}};
    const auto bytes = std::as_bytes(std::span(weight));
    host.values.assign(bytes.begin(), bytes.end());
    host = convert(host, format);
    do {
      copies_.push_back(backend.pack(host, reduction_of(shape)));
    } while (from_memory && copies_.size() * copies_.front()->bytes() < kOutOfCache);
  }

  const PackedMatrix& next() { return *copies_[turn_++ % copies_.size()]; }

  std::vector<float> weight;  // [n, k]
  std::vector<float> in;
  std::vector<float> out;

 private:
  std::vector<std::unique_ptr<PackedMatrix>> copies_;
  std::size_t turn_ = 0;
};

// A product to time: makes what runs it, once its operands are there.
using Product = std::function<void()>;
using MakeProduct = std::function<Product(Operands&)>;

struct Case {
  WeightFormat format;
  Shape shape;
  std::int64_t rows;
  bool from_memory;

  std::string name() const {
    return fmt::format("{}/[{}, {}]/{}/{}", format_name(format), shape.n, shape.k,
                       from_memory ? "memory" : "cache", rows);
  }
};

// Registers the benchmarks of one matrix, whose operands are made when the first of them runs.
class Benchmarks {
 public:
  Benchmarks(Backend& backend, Case of) : backend_(backend), case_(std::move(of)) {}

  void add_all() {
    add("contract", 0, contract());
    const std::int64_t panels = (case_.shape.n + cpu::kPanel - 1) / cpu::kPanel;
    for (const FreeProduct& free : free_products(case_.format)) {
      const bool fits = case_.rows % free.tile_rows == 0 && panels % free.tile_panels == 0;
      // Smaller tiles are never the fastest.
      if (!fits || free.tile_rows < std::min<std::int64_t>(case_.rows, 4)) continue;
      add(free.name, 1e-3f, [free, rows = case_.rows](Operands& operands) -> Product {
        return [&operands, free, rows] {
          free.run(dynamic_cast<const cpu::PanelMatrix&>(operands.next()), operands.in.data(), rows,
                   operands.out.data());
        };
      });
    }
    if (case_.from_memory) return;
    if (case_.format == WeightFormat::kFp32) add("oneDNN", 1e-3f, library(library_fp32));
    if (case_.format == WeightFormat::kBf16) add("oneDNN", 0.1f, library(library_bf16));
  }

 private:
  MakeProduct contract() const {
    return [&backend = backend_, rows = case_.rows](Operands& operands) -> Product {
      return [&backend, &operands, rows] {
        backend.linear({&operands.next(), operands.in.data(), operands.out.data(), rows});
      };
    };
  }
  template <typename Make>
  MakeProduct library(Make make) const {
    return [make, of = case_](Operands& operands) -> Product {
      return make(operands.weight, of.shape.n, of.shape.k, operands.in.data(), of.rows,
                  operands.out.data());
    };
  }

  // Another order of summation differs by some roundings; oneDNN's of bf16 is its own.
  void add(const std::string& variant, float tolerance, const MakeProduct& make) {
    const std::string name = case_.name() + "/" + variant;
    benchmark::RegisterBenchmark(name.c_str(), [=, this](benchmark::State& state) {
      if (!operands_) {
        operands_.emplace(backend_, case_.format, case_.shape, case_.from_memory);
        contract() (*operands_)();
        expected_ = operands_->out;
      }
      const Product product = make(*operands_);
      product();
      for (std::size_t i = 0; i < static_cast<std::size_t>(case_.rows * case_.shape.n); ++i) {
        check(std::abs(expected_[i] - operands_->out[i]) <= tolerance,
              "{}: output {} is {}, not {}", name, i, operands_->out[i], expected_[i]);
      }
      for (auto _ : state) product();
    });
  }

  Backend& backend_;
  Case case_;
  std::optional<Operands> operands_;
  std::vector<float> expected_;
};

// Keeps each benchmark's best time and prints the table at the end.
class Table : public benchmark::BenchmarkReporter {
 public:
  explicit Table(const std::vector<Case>& cases) {
    for (const Case& of : cases) rows_.push_back({of.name(), kNone, kNone, kNone, {}});
  }
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.error_occurred) continue;
      const std::string name = run.benchmark_name();
      const std::size_t cut = name.rfind('/');
      const std::string variant = name.substr(cut + 1);
      for (Row& row : rows_) {
        if (row.name == name.substr(0, cut)) keep(row, variant, run.GetAdjustedRealTime() / 1000);
      }
    }
  }
  void Finalize() override {
    fmt::print(
        "| weights | [n, k] | from | rows | contract, us | free, us | contract / free | its tile | "
        "oneDNN, us |\n|---|---|---|---|---|---|---|---|---|\n");
    for (const Row& row : rows_) {
      if (row.contract == kNone) continue;
      std::string cells = row.name;
      for (std::size_t at; (at = cells.find('/')) != std::string::npos;) {
        cells.replace(at, 1, " | ");
      }
      fmt::print("| {} | {:.1f} | {:.1f} | {:.2f} | {} | {} |\n", cells, row.contract, row.free,
                 row.contract / row.free, row.tile,
                 row.library == kNone ? "" : fmt::format("{:.1f}", row.library));
    }
  }

 private:
  static constexpr double kNone = std::numeric_limits<double>::infinity();
  struct Row {
    std::string name;
    double contract, free, library;  // microseconds
    std::string tile;
  };
  static void keep(Row& row, const std::string& variant, double time) {
    if (variant == "contract") {
      row.contract = std::min(row.contract, time);
    } else if (variant == "oneDNN") {
      row.library = std::min(row.library, time);
    } else if (time < row.free) {
      row.free = time;
      row.tile = variant;
    }
  }
  std::vector<Row> rows_;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (WeightFormat format : kFormats) {
    for (const Shape& shape : kShapes) {
      for (std::int64_t rows : kRows) cases.push_back({format, shape, rows, false});
    }
    // Many rows wait for no memory.
    for (std::int64_t rows : {1, 2, 4, 8}) cases.push_back({format, kShapes[0], rows, true});
  }
  return cases;
}

int run(int argc, char** argv) {
  // The user's come after and win.
  std::vector<char*> arguments(argv, argv + argc);
  std::string defaults[] = {"--benchmark_min_time=0.02", "--benchmark_repetitions=5",
                            "--benchmark_enable_random_interleaving=true"};
  for (std::string& text : defaults) arguments.insert(arguments.begin() + 1, text.data());
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

  const std::string isa = free_products_isa();
  if (isa.empty()) {
    fmt::print(stderr, "products_bench: compiled for a machine without AVX2\n");
    return 1;
  }
  const auto backend = make_cpu_backend({1, isa, {}});
  fmt::print("{}\n", backend->description());
  const std::vector<Case> cases = all_cases();
  std::vector<std::unique_ptr<Benchmarks>> benchmarks;
  for (const Case& of : cases) {
    benchmarks.push_back(std::make_unique<Benchmarks>(*backend, of));
    benchmarks.back()->add_all();
  }
  Table table(cases);
  benchmark::RunSpecifiedBenchmarks(&table);
  return 0;
}

}  // namespace
}  // namespace paceline::kernels

int main(int argc, char** argv) { return paceline::kernels::run(argc, argv); }
