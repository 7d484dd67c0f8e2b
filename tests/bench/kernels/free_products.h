#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/panel_matrix.h"

namespace paceline::kernels {

/// out[m, n] = sum over k of in[m, k] * weight[n, k] without the contract: several chains along K,
/// added at the end, neither segments nor their tree, and each tile a candidate of its own, for
/// whatever number of rows it is fastest. The weights lie as the backend packs them; integer
/// formats quantize activations, and bf16 rounds them, as the backend does.
struct FreeProduct {
  std::string name;  // "4 x 2, 2 chains": rows and column vectors of its tile
  int tile_rows = 1;
  int tile_panels = 1;  // at least one
  /// `rows` must be a multiple of tile_rows, the panels one of tile_panels.
  void (*run)(const cpu::PanelMatrix& weight, const float* in, std::int64_t rows, float* out);
};
std::vector<FreeProduct> free_products(WeightFormat format);

/// The instruction set that they are compiled for, as Backend names it; empty if this file was
/// compiled for a machine without AVX2.
std::string free_products_isa();

}  // namespace paceline::kernels
