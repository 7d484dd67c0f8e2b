#include <cstring>
#include <memory>
#include <string>

#include "kernels/api.h"
#include "kernels/core/float_environment.h"
#include "kernels/core/host_buffer.h"
#include "kernels/reference/linear.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels {

namespace {

class ReferenceBackend final : public Backend {
 public:
  std::string_view numerics() const override { return "cpu"; }
  std::string description() const override { return "reference, 1 thread"; }

  bool shares_host_memory() const override { return true; }
  Buffer allocate(std::size_t bytes) override { return allocate_host(bytes); }
  void upload(void* device, const void* host, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  void synchronize() override {}

  std::unique_ptr<PackedMatrix> pack(const MatrixSource& matrix,
                                     const Reduction& reduction) override {
    return reference::pack(matrix, reduction);
  }

  void linear(const LinearParams& params) override { run(reference::linear, params); }
  void embed(const EmbedParams& params) override { run(reference::embed, params); }
  void sum_partials(const SumPartialsParams& params) override {
    run(reference::sum_partials, params);
  }
  void rms_norm(const RmsNormParams& params) override { run(reference::rms_norm, params); }
  void rope_table(const RopeTableParams& params) override { run(reference::rope_table, params); }
  void rope_append(const RopeAppendParams& params) override { run(reference::rope_append, params); }
  void attention(const AttentionParams& params) override { run(reference::attention, params); }
  void gather_rows(const GatherRowsParams& params) override { run(reference::gather_rows, params); }
  void join_rows(const JoinRowsParams& params) override { run(reference::join_rows, params); }
  void place_columns(const PlaceColumnsParams& params) override {
    run(reference::place_columns, params);
  }
  void activate(const ActivateParams& params) override { run(reference::activate, params); }
  void top_log_probs(const TopLogProbsParams& params) override {
    run(reference::top_log_probs, params);
  }
  void place_beams(const PlaceBeamsParams& params) override { run(reference::place_beams, params); }
  void extend_beams(const ExtendBeamsParams& params) override {
    run(reference::extend_beams, params);
  }
  void merge_beams(const MergeBeamsParams& params) override { run(reference::merge_beams, params); }
  void resume_sequences(const ResumeSequencesParams& params) override {
    run(reference::resume_sequences, params);
  }
  void place_trees(const PlaceTreesParams& params) override { run(reference::place_trees, params); }
  void accept_paths(const AcceptPathsParams& params) override {
    run(reference::accept_paths, params);
  }
  void compact_kv(const CompactKvParams& params) override { run(reference::compact_kv, params); }
  void select_tokens(const SelectTokensParams& params) override {
    run(reference::select_tokens, params);
  }
  void largest_logits(const LargestLogitsParams& params) override {
    run(reference::largest_logits, params);
  }
  void merge_largest(const MergeLargestParams& params) override {
    run(reference::merge_largest, params);
  }
  void token_log_probs(const TokenLogProbsParams& params) override {
    run(reference::token_log_probs, params);
  }
  void sum_words(const SumWordsParams& params) override { run(reference::sum_words, params); }

 private:
  template <typename Params>
  static void run(void (*op)(const Params&), const Params& params) {
    const FloatEnvironment environment;
    op(params);
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace paceline::kernels
