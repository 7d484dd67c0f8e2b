#include "kernels/cpu/isa.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "hwy/targets.h"
#include "kernels/api.h"
#include "kernels/core/error.h"
#include "kernels/cpu/amx_tiles.h"

namespace paceline::kernels {

namespace cpu {

namespace {

// AMX after what it would replace: until it has run and been measured on hardware it has to be
// asked for.
constexpr std::array kBestFirst = {Isa::kAvx512Bf16, Isa::kAvx512Vnni, Isa::kAmx, Isa::kAvx512,
                                   Isa::kAvx2};

bool runs_here(Isa isa) {
  // Highway asks the processor and the operating system (which must save the wider registers).
  const std::int64_t targets = hwy::SupportedTargets();
  switch (isa) {
    case Isa::kAvx2:
      return (targets & HWY_AVX2) != 0;
    case Isa::kAvx512:
      return (targets & HWY_AVX3) != 0;
    case Isa::kAvx512Vnni:
      return (targets & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx512Bf16:
      return runs_here(Isa::kAvx512Vnni) && __builtin_cpu_supports("avx512bf16");
    case Isa::kAmx:
      return runs_here(Isa::kAvx512Bf16) && request_amx();
  }
  return false;
}

struct Supported {
  std::array<Isa, kBestFirst.size()> isas{};
  std::array<std::string_view, kBestFirst.size()> names{};
  std::size_t count = 0;
  Supported() {
    for (Isa isa : kBestFirst) {
      if (!runs_here(isa)) continue;
      isas[count] = isa;
      names[count] = isa_name(isa);
      ++count;
    }
  }
};

const Supported& supported() {
  static const Supported found;
  return found;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
    case Isa::kAmx:
      return "amx";
  }
  throw FatalError("unknown instruction set {}", static_cast<int>(isa));
}

std::span<const Isa> supported_isas() { return {supported().isas.data(), supported().count}; }

Isa select_isa(std::string_view name) {
  const std::span<const Isa> isas = supported_isas();
  if (isas.empty()) {
    throw ConfigError("this machine lacks AVX2, FMA or F16C, which the CPU backend needs");
  }
  if (name.empty()) return isas.front();
  for (Isa isa : isas) {
    if (isa_name(isa) == name) return isa;
  }
  std::string names;
  for (Isa isa : isas) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  const bool known =
      std::ranges::any_of(kBestFirst, [&](Isa isa) { return isa_name(isa) == name; });
  throw ConfigError("instruction set '{}' is {}; supported here: {}", name,
                    known ? "not one that this machine runs" : "unknown", names);
}

}  // namespace cpu

std::span<const std::string_view> supported_isas() {
  return {cpu::supported().names.data(), cpu::supported().count};
}

}  // namespace paceline::kernels
