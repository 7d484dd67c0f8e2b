#pragma once

#include <string>
#include <vector>

#include "drafter/training/parameters.h"
#include "drafter/weights.h"
#include "kernels/core/formats.h"

namespace paceline::drafter {

/// The weights of a head in training as a drafter loads them: so that what is being trained can
/// draft at once, e.g. to be judged on held-out texts.
class TrainedWeights final : public WeightSource {
 public:
  /// Matrices are given as `format`. base_output [outputs, hidden] is used if the head is tied.
  /// Both must outlive it.
  TrainedWeights(const HeadParameters& parameters, ConstMatrix base_output,
                 kernels::WeightFormat format = kernels::WeightFormat::kFp32)
      : parameters_(parameters), base_output_(base_output), format_(format) {}

  kernels::MatrixSource matrix(const std::string& name, std::int64_t n,
                               std::int64_t k) const override;
  std::vector<float> vector(const std::string& name, std::int64_t n) const override;

 private:
  const HeadParameters& parameters_;
  ConstMatrix base_output_;
  kernels::WeightFormat format_;
};

}  // namespace paceline::drafter
