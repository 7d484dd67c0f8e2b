#pragma once

#include <vector>

#include "drafter/training/activation.h"
#include "drafter/training/exit_layers.h"
#include "drafter/training/network.h"

namespace paceline::drafter {

/// Medusa's heads: at every position head i guesses the token of step i from the position's hidden
/// state.
class MedusaNetwork final : public HeadNetwork {
 public:
  MedusaNetwork(const DrafterConfig& config, const LossOptions& loss, ConstMatrix base_output,
                Gemm& gemm, kernels::ThreadPool& pool);

 private:
  /// One head, and what it reads.
  struct Head {
    ExitLayers exit;
    Activation hidden;  // [pairs of its step, hidden]
  };

  void forward(const HeadTensors& head, const TeacherRows& text, Matrix logits) override;
  void backward(const HeadTensors& head, ConstMatrix d_logits, HeadTensors& gradients) override;

  std::vector<Head> heads_;
};

}  // namespace paceline::drafter
