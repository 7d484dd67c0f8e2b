#pragma once

#include "kernels/cpu/linear_kernels.h"

namespace paceline::kernels::cpu::emulated_amx {

/// The products of kernels/cpu/linear_amx-inl.h with tile instructions in plain C++, for any number
/// of rows; all other code in them is what AMX machines run. Needs AVX-512.
const LinearKernels& linear_kernels();

}  // namespace paceline::kernels::cpu::emulated_amx
