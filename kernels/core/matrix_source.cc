#include "kernels/core/matrix_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/core/error.h"

namespace paceline::kernels {
namespace {

void check_range(const char* what, IndexRange range, std::int64_t size) {
  check(0 <= range.begin && range.begin <= range.end && range.end <= size, "{} [{}, {}) of {}",
        what, range.begin, range.end, size);
}

void copy_bytes(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void copy_rows(const StoredRows& from, const RowBytes& bytes, std::int64_t rows,
               const RowSpace& to) {
  const auto count = static_cast<std::size_t>(rows);
  copy_bytes(to.values, from.values, count * bytes.values);
  copy_bytes(to.scales, from.scales, count * bytes.scales);
  copy_bytes(to.minimums, from.minimums, count * bytes.minimums);
}

}  // namespace

MatrixSource::MatrixSource(WeightFormat format, std::int64_t rows, std::int64_t cols, Read read)
    : format_(format), rows_(rows), cols_(cols), read_(std::move(read)) {
  check(rows >= 0 && cols >= 0, "matrix of [{}, {}]", rows, cols);
}

MatrixSource::MatrixSource(HostMatrix matrix)
    : MatrixSource(matrix.format, matrix.rows, matrix.cols, nullptr) {
  check_sizes(matrix);
  const RowBytes bytes = row_bytes(format_, cols_);
  read_ = [bytes, kept = std::make_shared<const HostMatrix>(std::move(matrix))](
              IndexRange rows, const RowSpace& to) {
    copy_rows(rows_of(*kept).from(rows.begin, bytes), bytes, rows.size(), to);
  };
}

void MatrixSource::read(IndexRange rows, const RowSpace& to) const {
  check_range("rows", rows, rows_);
  if (rows.size() > 0) read_(rows, to);
}

HostMatrix read_rows(const MatrixSource& source) { return read_rows(source, {0, source.rows()}); }

HostMatrix read_rows(const MatrixSource& source, IndexRange rows) {
  HostMatrix matrix = make_matrix(source.format(), rows.size(), source.cols());
  source.read(rows, rows_of(matrix));
  return matrix;
}

std::vector<float> to_fp32(const MatrixSource& source) { return to_fp32(read_rows(source)); }

MatrixSource take_rows(MatrixSource source, std::span<const IndexRange> ranges) {
  // Ranges {2, 4}, {1, 1}, {0, 1}: rows of the result before each of them 0, 2, 2, and 3 in all.
  std::vector<IndexRange> kept(ranges.begin(), ranges.end());
  std::vector<std::int64_t> before = {0};
  for (const IndexRange& range : kept) {
    check_range("rows", range, source.rows());
    before.push_back(before.back() + range.size());
  }
  const WeightFormat format = source.format();
  const std::int64_t rows = before.back();
  const std::int64_t cols = source.cols();
  const RowBytes bytes = row_bytes(format, cols);
  return {format, rows, cols,
          [source = std::move(source), kept = std::move(kept), before = std::move(before), bytes](
              IndexRange wanted, const RowSpace& to) {
            auto part = static_cast<std::size_t>(std::ranges::upper_bound(before, wanted.begin) -
                                                 before.begin() - 1);
            for (std::int64_t row = wanted.begin; row < wanted.end; ++part) {
              const std::int64_t end = std::min(wanted.end, before[part + 1]);
              const std::int64_t first = kept[part].begin + row - before[part];
              source.read({first, first + end - row}, to.from(row - wanted.begin, bytes));
              row = end;
            }
          }};
}

void copy_cols(WeightFormat format, const StoredRows& from, std::int64_t cols, IndexRange range,
               std::int64_t rows, const RowSpace& to) {
  check_range("columns", range, cols);
  // row_bytes refuses a range that cuts a group.
  const RowBytes all = row_bytes(format, cols);
  const RowBytes kept = row_bytes(format, range.size());
  if (range.size() == cols) return copy_rows(from, all, rows, to);
  RowBytes before = row_bytes(format, range.begin);
  if (has_channel_scales(format)) before.scales = 0;  // one for all columns
  for (std::int64_t row = 0; row < rows; ++row) {
    const StoredRows whole = from.from(row, all);
    copy_rows({whole.values + before.values, whole.scales + before.scales,
               whole.minimums + before.minimums},
              kept, 1, to.from(row, kept));
  }
}

MatrixSource take_cols(MatrixSource source, IndexRange range) {
  check_range("columns", range, source.cols());
  row_bytes(source.format(), range.begin);
  row_bytes(source.format(), range.size());
  const WeightFormat format = source.format();
  const std::int64_t rows = source.rows();
  return {format, rows, range.size(),
          [source = std::move(source), range](IndexRange wanted, const RowSpace& to) {
            const HostMatrix whole = read_rows(source, wanted);
            copy_cols(whole.format, rows_of(whole), whole.cols, range, whole.rows, to);
          }};
}

MatrixSource concat_rows(std::vector<MatrixSource> parts) {
  check(!parts.empty(), "no matrices to put together");
  const WeightFormat format = parts[0].format();
  const std::int64_t cols = parts[0].cols();
  std::int64_t rows = 0;
  for (const MatrixSource& part : parts) {
    check(part.format() == format && part.cols() == cols,
          "a {} matrix of {} columns after a {} one of {}", format_name(part.format()), part.cols(),
          format_name(format), cols);
    rows += part.rows();
  }
  return {format, rows, cols,
          [parts = std::move(parts), bytes = row_bytes(format, cols)](IndexRange wanted,
                                                                      const RowSpace& to) {
            std::int64_t before = 0;
            for (const MatrixSource& part : parts) {
              const IndexRange own = {std::max(wanted.begin, before),
                                      std::min(wanted.end, before + part.rows())};
              if (own.begin < own.end) {
                part.read({own.begin - before, own.end - before},
                          to.from(own.begin - wanted.begin, bytes));
              }
              before += part.rows();
            }
          }};
}

MatrixSource convert(MatrixSource source, WeightFormat to, MatrixName name) {
  if (source.format() == to) return source;
  row_bytes(to, source.cols());
  const std::int64_t rows = source.rows();
  const std::int64_t cols = source.cols();
  return {to, rows, cols,
          [source = std::move(source), to, name = std::move(name)](IndexRange wanted,
                                                                   const RowSpace& out) {
            const HostMatrix stored = read_rows(source, wanted);
            convert_rows(stored.format, rows_of(stored), to, out, stored.rows, stored.cols,
                         {name.text, name.first_row + wanted.begin});
          }};
}

}  // namespace paceline::kernels
