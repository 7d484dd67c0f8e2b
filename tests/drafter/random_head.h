#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "drafter/config.h"
#include "drafter/weights.h"
#include "kernels/api.h"

namespace paceline::drafter {

inline kernels::HostMatrix fp32_matrix(const std::vector<float>& values, std::int64_t n,
                                       std::int64_t k) {
  kernels::HostMatrix matrix{kernels::WeightFormat::kFp32, n, k, {}, {}, {}};
  matrix.values.resize(values.size() * sizeof(float));
  std::memcpy(matrix.values.data(), values.data(), matrix.values.size());
  return matrix;
}

/// Random numbers that depend on the tensor's name alone.
class RandomWeights final : public WeightSource {
 public:
  explicit RandomWeights(kernels::WeightFormat format = kernels::WeightFormat::kFp32)
      : format_(format) {}

  std::vector<float> values(const std::string& name, std::int64_t count, float size) const {
    std::mt19937 random(static_cast<std::uint32_t>(std::hash<std::string>()(name)));
    std::uniform_real_distribution<float> uniform(-size, size);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = uniform(random);
    return values;
  }
  kernels::MatrixSource matrix(const std::string& name, std::int64_t n,
                               std::int64_t k) const override {
    return kernels::convert(fp32_matrix(values(name, n * k, 0.5f), n, k), format_);
  }
  std::vector<float> vector(const std::string& name, std::int64_t n) const override {
    return values(name, n, 0.5f);
  }

 private:
  kernels::WeightFormat format_;
};

/// A table on one rank.
class TableEmbedding final : public TokenEmbedding {
 public:
  TableEmbedding(const kernels::MatrixSource& table, kernels::Backend& backend)
      : backend_(backend), table_(backend.pack(table, kernels::Reduction::whole(table.cols()))) {}
  void forward(const std::int32_t* tokens, float* out, std::int64_t rows) override {
    backend_.embed({.table = table_.get(), .tokens = tokens, .out = out, .rows = rows});
  }
  bool stays_on_device() const override { return true; }

 private:
  kernels::Backend& backend_;
  std::unique_ptr<kernels::PackedMatrix> table_;
};

}  // namespace paceline::drafter
