#include "kernels/core/tree_rows.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void resume_sequences(const ResumeSequencesParams& params) { resume_each(params); }

void place_trees(const PlaceTreesParams& params) { place_each_tree(params); }

}  // namespace paceline::kernels::reference
