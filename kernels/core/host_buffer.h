#pragma once

#include <cstddef>

#include "kernels/api.h"

namespace paceline::kernels {

/// Zeroed host memory, 64-byte aligned, that ends on a 64-byte boundary. Throws std::bad_alloc.
Buffer allocate_host(std::size_t bytes);

}  // namespace paceline::kernels
