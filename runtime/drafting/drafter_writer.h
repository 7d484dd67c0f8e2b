#pragma once

#include <filesystem>

#include "drafter/training/parameters.h"
#include "kernels/core/formats.h"

namespace paceline::runtime {

/// Writes a trained head as a drafter directory that DrafterFiles reads: config.json with our own
/// keys where they are needed, and model.safetensors in the format of Apple's ml-recurrent-drafter
/// or medusa_lm_head.safetensors in that of FasterDecoding's Medusa. Biases are fp32; matrices are
/// fp32, bf16, or kInt8Group, which only we read and which needs hidden_size and exit_dim to be
/// multiples of 32.
/// Makes the directory; each file appears whole or not at all. Throws ConfigError naming the
/// directory and what is wrong.
void write_drafter(const std::filesystem::path& directory, const drafter::HeadParameters& head,
                   kernels::WeightFormat matrices);

}  // namespace paceline::runtime
