#pragma once

#include <cstdint>
#include <vector>

#include "drafter/training/activation.h"
#include "drafter/training/exit_layers.h"
#include "drafter/training/network.h"
#include "drafter/training/recurrence.h"

namespace paceline::drafter {

/// A ReDrafter head unrolled over the steps of its recurrence, which reads past masked tokens.
class RecurrentNetwork final : public HeadNetwork {
 public:
  RecurrentNetwork(const DrafterConfig& config, const LossOptions& loss, ConstMatrix base_output,
                   Gemm& gemm, kernels::ThreadPool& pool);

 private:
  void forward(const HeadTensors& head, const TeacherRows& text, Matrix logits) override;
  void backward(const HeadTensors& head, ConstMatrix d_logits, HeadTensors& gradients) override;
  void lay_out_tokens(const TeacherRows& text);

  Recurrence recurrence_;
  ExitLayers exit_;
  RowSet read_;                           // rows whose next token is read
  std::vector<std::int32_t> read_slots_;  // [depth, active]
  RecurrenceInputs inputs_;
  Activation read_embeddings_;  // [read, hidden]
  Activation joined_;           // [pairs, 2 hidden]
  Activation d_states_;         // [depth * active, hidden]
};

}  // namespace paceline::drafter
