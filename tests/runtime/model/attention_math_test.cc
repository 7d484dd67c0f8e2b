#include "runtime/model/attention_math.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

using kernels::AttentionMath;
using kernels::KvFormat;
using kernels::WeightFormat;

WeightFormats of(WeightFormat linear) { return {linear, WeightFormat::kBf16, ""}; }

TEST(ChooseAttention, IsBf16WhereAGpusBitsDifferAnyway) {
  for (const WeightFormat linear : {WeightFormat::kBf16, WeightFormat::kFp16, WeightFormat::kFp8}) {
    for (const char* const backend : {"cuda", "cuda,linear=cublaslt130100/sm_90x132"}) {
      EXPECT_EQ(choose_attention("auto", backend, of(linear), KvFormat::kBf16, 128),
                AttentionMath::kBf16);
      EXPECT_EQ(choose_attention("auto", backend, of(linear), KvFormat::kInt8, 80),
                AttentionMath::kBf16);
      EXPECT_EQ(choose_attention("fp32", backend, of(linear), KvFormat::kBf16, 128),
                AttentionMath::kFp32);
    }
    EXPECT_EQ(choose_attention("auto", "cpu", of(linear), KvFormat::kBf16, 128),
              AttentionMath::kFp32);
  }
  for (const WeightFormat linear :
       {WeightFormat::kFp32, WeightFormat::kInt8Channel, WeightFormat::kInt4Group}) {
    EXPECT_EQ(choose_attention("auto", "cuda", of(linear), KvFormat::kBf16, 128),
              AttentionMath::kFp32);
    EXPECT_EQ(choose_attention("bf16", "cuda", of(linear), KvFormat::kBf16, 128),
              AttentionMath::kBf16);
  }
}

TEST(ChooseAttention, IsFp32WhereTensorCoresCannot) {
  const WeightFormats bf16 = of(WeightFormat::kBf16);
  EXPECT_EQ(choose_attention("auto", "cuda", bf16, KvFormat::kFp32, 128), AttentionMath::kFp32);
  EXPECT_EQ(choose_attention("auto", "cuda", bf16, KvFormat::kBf16, 72), AttentionMath::kFp32);
  EXPECT_EQ(choose_attention("auto", "cuda", bf16, KvFormat::kBf16, 272), AttentionMath::kFp32);
}

TEST(ChooseAttention, SaysWhatBf16WouldTake) {
  const auto message = [](const char* backend, KvFormat kv, int head_dim) -> std::string {
    try {
      choose_attention("bf16", backend, of(WeightFormat::kBf16), kv, head_dim);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing";
  };
  EXPECT_EQ(message("cpu", KvFormat::kBf16, 128),
            "--attention bf16: it is for a GPU's tensor cores (--device cuda), but this rank "
            "computes on the CPU");
  EXPECT_EQ(message("cuda", KvFormat::kFp32, 128),
            "--attention bf16: the key/value cache is fp32, expected bf16 or int8 (--kv-format)");
  EXPECT_EQ(message("cuda", KvFormat::kInt8, 72),
            "--attention bf16: the model's heads have 72 elements, expected a multiple of 16 up to "
            "256");
  EXPECT_EQ(message("cuda", KvFormat::kInt8, 80), "nothing");
}

}  // namespace
}  // namespace paceline::runtime
