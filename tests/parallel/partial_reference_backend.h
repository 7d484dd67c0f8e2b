#pragma once

#include <cstdlib>
#include <cstring>

#include "kernels/api.h"
#include "kernels/core/error.h"
#include "kernels/reference/linear.h"

namespace paceline::parallel {

class PartialReferenceBackend final : public kernels::Backend {
 public:
  std::string_view numerics() const override { return "cpu"; }
  std::string description() const override { return "the reference products"; }
  kernels::Buffer allocate(std::size_t bytes) override {
    return {std::calloc(bytes + 1, 1), bytes, std::free};
  }
  void upload(void* device, const void* host, std::size_t bytes) override {
    std::memcpy(device, host, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    std::memcpy(host, device, bytes);
  }
  void synchronize() override {}
  std::unique_ptr<kernels::PackedMatrix> pack(const kernels::HostMatrix& matrix,
                                              const kernels::Reduction& reduction) override {
    return kernels::reference::pack(matrix, reduction);
  }
  void linear(const kernels::LinearParams& params) override { kernels::reference::linear(params); }
  void embed(const kernels::EmbedParams& params) override { kernels::reference::embed(params); }
  void sum_partials(const kernels::SumPartialsParams& params) override {
    for (std::int64_t i = 0; i < params.size; ++i) {
      std::vector<float> stack;
      for (std::size_t p = 0; p < params.merges.size(); ++p) {
        stack.push_back(params.partials[p * params.size + i]);
        for (int m = 0; m < params.merges[p]; ++m) {
          const float top = stack.back();
          stack.pop_back();
          stack.back() = stack.back() + top;
        }
      }
      params.out[i] = params.residual != nullptr ? params.residual[i] + stack.at(0) : stack.at(0);
    }
  }
  void rms_norm(const kernels::RmsNormParams&) override { refuse(); }
  void rope_table(const kernels::RopeTableParams&) override { refuse(); }
  void rope_append(const kernels::RopeAppendParams&) override { refuse(); }
  void attention(const kernels::AttentionParams&) override { refuse(); }
  void silu_mul(const kernels::SiluMulParams&) override { refuse(); }
  void gather_rows(const kernels::GatherRowsParams&) override { refuse(); }
  void select_tokens(const kernels::SelectTokensParams&) override { refuse(); }
  void token_log_probs(const kernels::TokenLogProbsParams&) override { refuse(); }

 private:
  [[noreturn]] static void refuse() { throw FatalError("not one of the split layers' ops"); }
};

}  // namespace paceline::parallel
