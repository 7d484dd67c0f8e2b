#include "kernels/core/tree_rows.h"

#include "kernels/core/error.h"

namespace paceline::kernels {

void resume_each(const ResumeSequencesParams& params) {
  for (std::int64_t i = 0; i < params.count; ++i) resume_sequence(params, i);
}

void place_each_tree(const PlaceTreesParams& params) {
  for (std::int64_t p = 0; p < params.count; ++p) {
    const TreePlace& place = params.places[p];
    const PathTree tree = place.tree < 0 ? PathTree{} : params.trees[place.tree];
    const PathNode* nodes =
        place.tree < 0 ? nullptr : params.nodes + place.tree * params.most_nodes;
    check(fits(tree, place), "place_trees: a tree of {} nodes in room for {}, {} with logits",
          tree.nodes, place.rows, place.sampled_rows);
    params.batch.accept[place.accept].nodes = tree.nodes;
    for (std::int32_t i = 0; i < place.rows; ++i) {
      if (place_row(params.batch, place, nodes, tree.nodes, i)) continue;
      throw FatalError("place_trees: a node of depth {}, expected at most {}", nodes[i].depth,
                       place.depth);
    }
    for (std::int32_t i = 0; i < place.sampled_rows; ++i) {
      place_sampled_row(params.batch, place, nodes, tree.nodes, i);
    }
  }
}

}  // namespace paceline::kernels
