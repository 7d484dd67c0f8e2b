#pragma once

#include "runtime/model/config_fields.h"

namespace paceline::runtime {

/// How linears may be stored besides floats.
enum class StoredQuantization { kNone, kPaceline, kFp8 };

/// `quantization_config` of a config.json. Supported are "paceline" (integers in groups of 32),
/// "fp8" (transformers, vLLM) and "compressed-tensors" with the format "float-quantized", both with
/// a scale for each tensor or output. How activations were quantized in training or calibration
/// does not matter: here they are not. Throws ConfigError naming the key for everything else.
StoredQuantization stored_quantization(const ConfigFields& config);

}  // namespace paceline::runtime
