#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "kernels/core/function_ref.h"

namespace paceline::kernels::cuda {

/// CUDA graphs of what was put on a stream under some key: the second time a key comes its kernels
/// are recorded, from the third on they are started by one call. A kernel's parameters are recorded
/// with it, so memory that they point to must stay where it is: `forget` when some has moved.
///
/// The first time nothing is recorded: memory that grows with what is asked of it must not do so
/// while a graph is recorded, and many keys never come again.
class GraphCache {
 public:
  /// Beyond these the one that was not used for longest goes. A recorded step has some ten kernels
  /// a layer, of about 2 KB each in the driver's books: at most 64 MB for a model of 32 layers.
  static constexpr std::size_t kMostGraphs = 96;

  GraphCache() = default;
  /// What is on the stream must have been done.
  ~GraphCache();
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  /// Puts `ops` on the stream, which must not be the default one.
  void run(std::span<const std::int64_t> key, FunctionRef<void()> ops, cudaStream_t stream);
  /// A graph that the stream may not have come past is destroyed when it has.
  void forget(cudaStream_t stream);

  /// Whether a graph is being recorded.
  bool recording() const { return recording_; }
  std::int64_t recorded() const { return recorded_; }
  std::int64_t repeated() const { return repeated_; }

 private:
  struct Destroy {
    void operator()(cudaGraphExec_t graph) const { (void)cudaGraphExecDestroy(graph); }
  };
  using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy>;
  struct Entry {
    Graph graph;  // none: the key came once
    std::int64_t used = 0;
  };

  /// Graphs that nobody will start again, and the place on the stream behind them.
  struct Forgotten {
    std::vector<Graph> graphs;
    cudaEvent_t passed = nullptr;
  };

  Graph record(FunctionRef<void()> ops, cudaStream_t stream);
  void drop_oldest();
  void destroy_passed();

  std::map<std::vector<std::int64_t>, Entry> entries_;
  std::vector<Forgotten> forgotten_;
  std::int64_t clock_ = 0;
  bool recording_ = false;
  std::int64_t recorded_ = 0;
  std::int64_t repeated_ = 0;
};

}  // namespace paceline::kernels::cuda
