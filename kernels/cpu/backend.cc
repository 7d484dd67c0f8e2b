#include <fmt/format.h>

#include <cstring>

#include "kernels/api.h"
#include "kernels/core/host_buffer.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/ops.h"

namespace paceline::kernels {
namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : isa_(cpu::select_isa(options.isa)),
        row_ops_(cpu::row_ops(isa_)),
        pool_(options.threads, options.cpus),
        linear_(isa_, pool_) {}

  std::string_view numerics() const override { return "cpu"; }
  std::string description() const override {
    return fmt::format("{}, {} thread{}", cpu::isa_name(isa_), pool_.threads(),
                       pool_.threads() == 1 ? "" : "s");
  }

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
    return linear_.pack(matrix, reduction);
  }
  void linear(const LinearParams& params) override { linear_.linear(params); }
  void embed(const EmbedParams& params) override { linear_.embed(params); }
  void sum_partials(const SumPartialsParams& params) override {
    cpu::sum_partials(params, row_ops_, pool_);
  }
  void rms_norm(const RmsNormParams& params) override { cpu::rms_norm(params, row_ops_, pool_); }
  void rope_table(const RopeTableParams& params) override {
    cpu::rope_table(params, row_ops_, pool_);
  }
  void rope_append(const RopeAppendParams& params) override {
    cpu::rope_append(params, row_ops_, pool_);
  }
  void attention(const AttentionParams& params) override {
    cpu::attention(params, row_ops_, pool_);
  }
  void gather_rows(const GatherRowsParams& params) override {
    cpu::gather_rows(params, row_ops_, pool_);
  }
  void join_rows(const JoinRowsParams& params) override { cpu::join_rows(params, row_ops_, pool_); }
  void place_columns(const PlaceColumnsParams& params) override {
    cpu::place_columns(params, row_ops_, pool_);
  }
  void activate(const ActivateParams& params) override { cpu::activate(params, row_ops_, pool_); }
  void top_log_probs(const TopLogProbsParams& params) override {
    cpu::top_log_probs(params, row_ops_, pool_);
  }
  void place_beams(const PlaceBeamsParams& params) override { cpu::place_beams(params); }
  void extend_beams(const ExtendBeamsParams& params) override { cpu::extend_beams(params, pool_); }
  void merge_beams(const MergeBeamsParams& params) override { cpu::merge_beams(params, pool_); }
  void resume_sequences(const ResumeSequencesParams& params) override {
    cpu::resume_sequences(params);
  }
  void place_trees(const PlaceTreesParams& params) override { cpu::place_trees(params); }
  void accept_paths(const AcceptPathsParams& params) override { cpu::accept_paths(params); }
  void compact_kv(const CompactKvParams& params) override {
    cpu::compact_kv(params, row_ops_, pool_);
  }
  void select_tokens(const SelectTokensParams& params) override {
    cpu::select_tokens(params, row_ops_, pool_);
  }
  void largest_logits(const LargestLogitsParams& params) override {
    cpu::largest_logits(params, row_ops_, pool_);
  }
  void merge_largest(const MergeLargestParams& params) override { cpu::merge_largest(params); }
  void token_log_probs(const TokenLogProbsParams& params) override {
    cpu::token_log_probs(params, row_ops_, pool_);
  }
  void sum_words(const SumWordsParams& params) override { cpu::sum_words(params, pool_); }

 private:
  cpu::Isa isa_;
  const cpu::RowOps& row_ops_;
  ThreadPool pool_;
  cpu::Linear linear_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace paceline::kernels
