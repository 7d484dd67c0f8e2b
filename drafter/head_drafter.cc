#include "drafter/head_drafter.h"

#include "drafter/medusa_drafter.h"
#include "drafter/recurrent_drafter.h"

namespace paceline::drafter {

std::unique_ptr<Drafter> make_drafter(const DrafterConfig& config, const WeightSource& weights,
                                      TokenEmbedding& embedding, kernels::Backend& backend) {
  if (config.kind == DrafterKind::kMedusa) {
    return std::make_unique<MedusaDrafter>(config, weights, backend);
  }
  return std::make_unique<RecurrentDrafter>(config, weights, embedding, backend);
}

}  // namespace paceline::drafter
