#pragma once

#include <span>
#include <string_view>

namespace paceline::kernels::cpu {

/// The x86 instruction sets that kernels are written for. A backend picks one when it is made and
/// fetches its kernels from one table per op family (`row_ops(isa)`, `linear_kernels(isa)`), so
/// backends of different instruction sets live in one process. An op family without code of its
/// own for one of them returns the table of the next lower one.
enum class Isa {
  kAvx2,        // AVX2, FMA, F16C, BMI2
  kAvx512,      // and AVX-512 F, BW, DQ, VL
  kAvx512Vnni,  // and AVX-512 VNNI
  kAvx512Bf16,  // and AVX-512 BF16
  kAmx,         // and AMX-TILE, AMX-INT8, with the operating system's permission
};

/// "avx2", "avx512", "avx512vnni", "avx512bf16", "amx".
std::string_view isa_name(Isa isa);

/// What this machine and its operating system can run, best first; empty without AVX2. The first
/// call asks for the permission to use AMX, once for the process; refused, it is left out.
std::span<const Isa> supported_isas();

/// The instruction set of that name; the best one for an empty name. Throws ConfigError naming the
/// supported ones.
Isa select_isa(std::string_view name);

}  // namespace paceline::kernels::cpu
