#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace paceline::kernels {

/// How the elements of a weight matrix [n, k] (n outputs, k inputs) are stored.
enum class WeightFormat {
  kFp32,
  kBf16,
  kFp16,
  kFp8,          // OCP E4M3, one fp32 scale per output
  kInt8Channel,  // int8, one fp32 scale per output; activations int8 in groups of 64
  kInt8Group,    // int8, one fp16 scale per 32 inputs (GGUF Q8_0); activations int8 in groups of 32
  kInt4Group,    // 4 bit, fp16 scale and minimum per 32 inputs (GGUF Q4_1); activations as above
};

/// How keys and values are rounded when they are written to the cache.
enum class KvFormat {
  kFp32,
  kBf16,
  kInt8,  // int8, one fp32 scale per key and per value (see KvPool)
};

/// Bytes of one stored element of a key or value.
constexpr std::size_t element_bytes(KvFormat format) {
  switch (format) {
    case KvFormat::kFp32:
      return 4;
    case KvFormat::kBf16:
      return 2;
    case KvFormat::kInt8:
      return 1;
  }
  return 0;
}

/// Inputs that share one weight scale in the group formats.
inline constexpr int kWeightGroup = 32;

/// Whether each output has one fp32 scale.
constexpr bool has_channel_scales(WeightFormat format) {
  return format == WeightFormat::kFp8 || format == WeightFormat::kInt8Channel;
}

/// Inputs that share one activation scale: 64 for kInt8Channel, 32 for the group formats, 0 where
/// activations stay fp32. Shards are cut at multiples of it.
constexpr int activation_group(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8Channel:
      return 64;
    case WeightFormat::kInt8Group:
    case WeightFormat::kInt4Group:
      return kWeightGroup;
    default:
      return 0;
  }
}

/// "fp32", "bf16", "fp16", "fp8", "int8", "int8g32", "int4g32": as they stand in the `numerics_id`.
std::string_view format_name(WeightFormat format);
/// "fp32", "bf16", "int8".
std::string_view format_name(KvFormat format);

}  // namespace paceline::kernels
