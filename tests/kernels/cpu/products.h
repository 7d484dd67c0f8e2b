#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/linear.h"
#include "kernels/reference/linear.h"
#include "tests/kernels/cpu/emulated_amx.h"

/// What the tests of the CPU's `linear` share.
namespace paceline::kernels::cpu {

/// `linear`'s product, or the reference's if that is null.
inline std::vector<float> product(const PackedMatrix& weight, const std::vector<float>& in,
                                  std::int64_t rows, Linear* linear,
                                  const LinearInput& input = {}) {
  // Filled with something so that an output nobody writes is seen.
  std::vector<float> out(
      static_cast<std::size_t>(weight.reduction().outputs() * rows * weight.rows()), 12345.0f);
  const LinearParams params{&weight, in.data(), out.data(), rows, input};
  linear != nullptr ? linear->linear(params) : reference::linear(params);
  return out;
}

/// Bits, except that a NaN stands for any NaN.
inline std::vector<std::uint32_t> bits(const std::vector<float>& values) {
  std::vector<std::uint32_t> result;
  result.reserve(values.size());
  for (float value : values) {
    result.push_back(std::isnan(value) ? 0x7fc00000u : std::bit_cast<std::uint32_t>(value));
  }
  return result;
}

struct NamedKernels {
  std::string name;
  const LinearKernels* kernels;
  const RowOps* row_ops;
};

/// Of every instruction set that the machine has; and tiles for any number of rows: AMX's in plain
/// C++, and its own.
inline std::vector<NamedKernels> kernels_here() {
  std::vector<NamedKernels> found;
  for (Isa isa : supported_isas()) {
    const RowOps* const ops = &row_ops(isa);
    found.push_back({std::string(isa_name(isa)), &linear_kernels(isa), ops});
    if (isa == Isa::kAvx512) {
      found.push_back({"emulated amx", &emulated_amx::linear_kernels(), ops});
    }
    if (isa != Isa::kAmx) continue;
    static const LinearKernels always = [] {
      LinearKernels kernels = linear_kernels(Isa::kAmx);
      kernels.tiles_from = 1;
      return kernels;
    }();
    found.push_back({"amx from 1 row on", &always, ops});
  }
  return found;
}

}  // namespace paceline::kernels::cpu
