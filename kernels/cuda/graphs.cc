#include "kernels/cuda/graphs.h"

#include <algorithm>

#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {

namespace {

bool has_passed(cudaError_t status) {
  if (status == cudaErrorNotReady) return false;
  check_call("the device", status);
  return true;
}

}  // namespace

GraphCache::~GraphCache() {
  for (Forgotten& forgotten : forgotten_) (void)cudaEventDestroy(forgotten.passed);
}

void GraphCache::forget(cudaStream_t stream) {
  Forgotten forgotten;
  for (auto& [key, entry] : entries_) {
    if (entry.graph != nullptr) forgotten.graphs.push_back(std::move(entry.graph));
  }
  entries_.clear();
  destroy_passed();
  if (forgotten.graphs.empty() || has_passed(cudaStreamQuery(stream))) return;
  check_call("cudaEventCreate",
             cudaEventCreateWithFlags(&forgotten.passed, cudaEventDisableTiming));
  forgotten_.push_back(std::move(forgotten));
  check_call("cudaEventRecord", cudaEventRecord(forgotten_.back().passed, stream));
}

void GraphCache::destroy_passed() {
  std::erase_if(forgotten_, [](const Forgotten& forgotten) {
    if (!has_passed(cudaEventQuery(forgotten.passed))) return false;
    check_call("cudaEventDestroy", cudaEventDestroy(forgotten.passed));
    return true;
  });
}

void GraphCache::run(std::span<const std::int64_t> key, FunctionRef<void()> ops,
                     cudaStream_t stream) {
  const auto [found, is_new] = entries_.try_emplace({key.begin(), key.end()});
  Entry& entry = found->second;
  entry.used = ++clock_;
  if (is_new) {
    if (entries_.size() > kMostGraphs) drop_oldest();
    ops();
    return;
  }
  if (entry.graph == nullptr) {
    entry.graph = record(ops, stream);
    ++recorded_;
  } else {
    ++repeated_;
  }
  check_call("cudaGraphLaunch", cudaGraphLaunch(entry.graph.get(), stream));
}

GraphCache::Graph GraphCache::record(FunctionRef<void()> ops, cudaStream_t stream) {
  check_call("cudaStreamBeginCapture",
             cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t recorded = nullptr;
  recording_ = true;
  try {
    ops();
  } catch (...) {
    recording_ = false;
    (void)cudaStreamEndCapture(stream, &recorded);
    if (recorded != nullptr) (void)cudaGraphDestroy(recorded);
    throw;
  }
  recording_ = false;
  check_call("cudaStreamEndCapture", cudaStreamEndCapture(stream, &recorded));
  cudaGraphExec_t graph = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&graph, recorded, 0);
  (void)cudaGraphDestroy(recorded);
  check_call("cudaGraphInstantiate", status);
  return Graph(graph);
}

void GraphCache::drop_oldest() {
  entries_.erase(
      std::ranges::min_element(entries_, {}, [](const auto& entry) { return entry.second.used; }));
}

}  // namespace paceline::kernels::cuda
