#pragma once

#include <filesystem>

#include "drafter/training/parameters.h"
#include "kernels/core/formats.h"

namespace paceline::runtime {

/// Writes a trained head as a drafter directory that DrafterFiles reads: model.safetensors and
/// config.json in the format of Apple's ml-recurrent-drafter, with our own keys where they are
/// needed. Biases are fp32; matrices are fp32, bf16, or kInt8Group, which Apple's code does not
/// read and which needs hidden_size and exit_dim to be multiples of 32.
/// Makes the directory; each file appears whole or not at all. Throws ConfigError naming the
/// directory and what is wrong.
void write_drafter(const std::filesystem::path& directory, const drafter::HeadParameters& head,
                   kernels::WeightFormat matrices);

}  // namespace paceline::runtime
