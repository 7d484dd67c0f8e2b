#include "kernels/cuda/device_matrix.h"

#include <span>

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"
#include "kernels/core/reduction.h"

namespace paceline::kernels::cuda {
namespace {

Buffer to_device(Backend& device, std::span<const std::byte> bytes) {
  Buffer buffer;
  upload(device, buffer, bytes);
  return buffer;
}

}  // namespace

DeviceMatrix::DeviceMatrix(const HostMatrix& matrix, const Reduction& reduction, Backend& device)
    : format_(matrix.format), rows_(matrix.rows), cols_(matrix.cols), reduction_(reduction) {
  const RowBytes row = row_bytes(format_, cols_);
  const auto rows = static_cast<std::size_t>(rows_);
  check(matrix.values.size() == row.values * rows && matrix.scales.size() == row.scales * rows &&
            matrix.minimums.size() == row.minimums * rows,
        "a matrix [{}, {}] of {} bytes, {} of scales, {} of minimums", rows_, cols_,
        matrix.values.size(), matrix.scales.size(), matrix.minimums.size());
  check_reduction(reduction_, format_, cols_);
  values_ = to_device(device, matrix.values);
  scales_ = to_device(device, matrix.scales);
  minimums_ = to_device(device, matrix.minimums);
}

}  // namespace paceline::kernels::cuda
