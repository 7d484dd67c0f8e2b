#pragma once

#include <memory>

#include "drafter/config.h"
#include "drafter/drafter.h"
#include "drafter/weights.h"
#include "kernels/api.h"

namespace paceline::drafter {

/// The drafter of a head of either kind. The embedding, which Medusa's does not need, and the
/// backend must outlive it. Throws what `weights` throws.
std::unique_ptr<Drafter> make_drafter(const DrafterConfig& config, const WeightSource& weights,
                                      TokenEmbedding& embedding, kernels::Backend& backend);

}  // namespace paceline::drafter
