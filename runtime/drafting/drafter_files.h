#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "drafter/config.h"
#include "drafter/weights.h"
#include "runtime/files/safetensors.h"
#include "runtime/model/config.h"
#include "runtime/model/weights.h"

namespace paceline::runtime {

/// The model that a drafter is opened for. All must outlive the drafter's files.
struct DraftedModel {
  std::string name;  ///< its directory, for messages
  const ModelConfig& config;
  const Checkpoint& checkpoint;
};

/// The base's output rows of the tokens that can be drafted, all if `draft_vocab` is empty, as they
/// are stored.
kernels::MatrixSource base_output_rows(const DraftedModel& model,
                                       std::span<const std::int32_t> draft_vocab);

/// A drafter directory: config.json, which says of what kind it is, and safetensors.
/// - ReDrafter: input_proj.{weight,bias} (only if exit_dim is not 2 hidden_size), rnn_w.weight and
///   rnn_u.{weight,bias} (only if rnn), lm_head.{i}.linear.{weight,bias} for the residual blocks,
///   lm_head.{n}.weight.
/// - Medusa, in medusa_lm_head.safetensors or model.safetensors: of head i
///   {i}.{j}.linear.{weight,bias} for the residual blocks and {i}.{n}.weight, names perhaps with
///   medusa_head. before them. Heads beyond medusa_num_heads are not read. A .pt file is refused
///   with the line that converts it.
/// Output matrices are not read if tied_head; matrices may be stored as integers as a model's may.
class DrafterFiles final : public drafter::WeightSource {
 public:
  /// Checks the config, that it fits the model, and that the checkpoint holds what it describes,
  /// nothing else, and finite numbers alone. `weights`: kAuto keeps what is stored; kInt4 is
  /// refused. Throws ConfigError naming the directory and what is wrong.
  static DrafterFiles open(const std::filesystem::path& directory, WeightChoice weights,
                           const DraftedModel& model);

  const drafter::DrafterConfig& config() const { return config_; }

  kernels::MatrixSource matrix(const std::string& name, std::int64_t n,
                               std::int64_t k) const override;
  std::vector<float> vector(const std::string& name, std::int64_t n) const override;

 private:
  DrafterFiles(drafter::DrafterConfig config, bool quantized, Checkpoint checkpoint,
               WeightChoice weights, const DraftedModel& model);

  void check_weights() const;
  void check_layout() const;
  void check_numbers() const;
  bool may_be_left_out(const std::string& name) const;
  kernels::MatrixSource stored_matrix(const std::string& name, std::int64_t n,
                                      std::int64_t k) const;

  drafter::DrafterConfig config_;
  std::string prefix_;   // of every tensor's name
  ModelConfig storage_;  // says only whether integer layouts are announced
  Checkpoint checkpoint_;
  WeightChoice weights_;
  DraftedModel model_;
};

}  // namespace paceline::runtime
