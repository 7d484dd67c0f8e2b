#pragma once

#include <string>

#include "drafter/config.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"

namespace paceline::runtime {

/// Whether a drafter's config.json is of the kind of FasterDecoding's Medusa.
bool is_medusa(const Json& config);

/// "medusa_head." if the names of the checkpoint's tensors begin with that, else "".
std::string medusa_prefix(const Checkpoint& checkpoint);

/// Reads a drafter's config.json. `source` names the file in messages.
/// - Apple's ml-recurrent-drafter: model_type "recurrent_drafting_drafter", vocab_size,
///   hidden_size, exit_dim, num_draft_layers, rnn.
/// - FasterDecoding's Medusa: medusa_num_heads, medusa_num_layers; base_model_name_or_path,
///   vocab_size and hidden_size, which older ones lack: then the `checkpoint`, if it is given, says
///   them by the shape of the first head's output matrix.
/// Optional keys of our own: draft_vocab (ids), tied_head, and for Medusa medusa_choices (lists of
/// ranks, in any order). Throws ConfigError naming the key.
drafter::DrafterConfig parse_drafter_config(const Json& config, const std::string& source,
                                            const Checkpoint* checkpoint = nullptr);

}  // namespace paceline::runtime
