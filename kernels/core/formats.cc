#include "kernels/core/formats.h"

#include "kernels/core/error.h"

namespace paceline::kernels {

std::string_view format_name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFp32:
      return "fp32";
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kFp16:
      return "fp16";
    case WeightFormat::kFp8:
      return "fp8";
    case WeightFormat::kInt8Channel:
      return "int8";
    case WeightFormat::kInt8Group:
      return "int8g32";
    case WeightFormat::kInt4Group:
      return "int4g32";
  }
  throw FatalError("unknown weight format {}", static_cast<int>(format));
}

std::string_view format_name(KvFormat format) {
  switch (format) {
    case KvFormat::kFp32:
      return "fp32";
    case KvFormat::kBf16:
      return "bf16";
    case KvFormat::kInt8:
      return "int8";
  }
  throw FatalError("unknown key/value format {}", static_cast<int>(format));
}

}  // namespace paceline::kernels
