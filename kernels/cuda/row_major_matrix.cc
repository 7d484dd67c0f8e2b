#include "kernels/cuda/row_major_matrix.h"

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"
#include "kernels/core/reduction.h"
#include "kernels/cuda/row_major.h"

namespace paceline::kernels::cuda {
std::vector<IndexRange> output_columns(const Reduction& reduction) {
  std::vector<IndexRange> stack;
  for (const Reduction::Segment& segment : reduction.segments) {
    IndexRange top = segment.cols;
    for (int merge = 0; merge < segment.merges; ++merge) {
      top.begin = stack.back().begin;
      stack.pop_back();
    }
    stack.push_back(top);
  }
  return stack;
}

RowMajorMatrix::RowMajorMatrix(const MatrixSource& matrix, const Reduction& reduction,
                               Backend& device, Staging& staging)
    : format_(matrix.format()),
      rows_(matrix.rows()),
      cols_(matrix.cols()),
      stride_((matrix.cols() + 7) / 8 * 8),
      reduction_(reduction) {
  check(holds(format_), "a matrix of {} for cuBLASLt, expected bf16 or fp16", format_name(format_));
  check_reduction(reduction_, format_, cols_);
  sums_ = output_columns(reduction_);
  auto* const to = reserve<std::uint16_t>(device, values_, rows_ * stride_);
  if (values_.bytes() == 0) return;
  staging.send_rows(matrix, 1, device,
                    [&](IndexRange rows, const StoredRows& copy, cudaStream_t stream) {
                      place_rows(*this, reinterpret_cast<const std::uint16_t*>(copy.values),
                                 rows.size(), to + rows.begin * stride_, stream);
                    });
}

}  // namespace paceline::kernels::cuda
