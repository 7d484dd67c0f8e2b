#pragma once

#include <memory>

#include "kernels/core/matrix_source.h"
#include "kernels/params.h"

namespace paceline::kernels::reference {

/// Keeps the matrix as it is: row-major.
std::unique_ptr<PackedMatrix> pack(const MatrixSource& matrix, const Reduction& reduction);

void linear(const LinearParams& params);
void embed(const EmbedParams& params);

}  // namespace paceline::kernels::reference
