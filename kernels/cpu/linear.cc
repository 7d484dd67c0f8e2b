#include "kernels/cpu/linear.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/core/host_buffer.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/panel_matrix.h"
#include "kernels/cpu/split.h"

namespace paceline::kernels::cpu {

namespace {

const PanelMatrix& panel_matrix(const PackedMatrix* matrix) {
  const auto* own = dynamic_cast<const PanelMatrix*>(matrix);
  check(own != nullptr, "the matrix was packed by another backend");
  return *own;
}

/// Room for `count` elements. What it held is lost when it grows.
template <typename T>
T* grow(Buffer& buffer, std::int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  if (buffer.bytes() < bytes) buffer = allocate_host(std::max(bytes, 2 * buffer.bytes()));
  return buffer.as<T>();
}

}  // namespace

QuantizedLayout quantized_layout(WeightFormat format, std::int64_t cols, int row_block) {
  QuantizedLayout layout;
  layout.group = activation_group(format);
  layout.row_block = row_block;
  if (layout.group == 0) {
    layout.row_bytes = static_cast<std::size_t>(cols) * sizeof(float);
    return layout;
  }
  layout.groups = (cols + layout.group - 1) / layout.group;
  layout.block_bytes =
      static_cast<std::size_t>(layout.groups) * block_group_bytes(layout.group, row_block);
  return layout;
}

const LinearKernels& linear_kernels(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return avx2::linear_kernels();
    case Isa::kAvx512:
      return avx512::linear_kernels();
    case Isa::kAvx512Vnni:
      return avx512vnni::linear_kernels();
    case Isa::kAvx512Bf16:
      return avx512bf16::linear_kernels();
    case Isa::kAmx:
      return amx::linear_kernels();
  }
  throw FatalError("no products for instruction set {}", static_cast<int>(isa));
}

std::unique_ptr<PackedMatrix> Linear::pack(const MatrixSource& matrix, const Reduction& reduction) {
  return std::make_unique<PanelMatrix>(matrix, reduction, arena_, pool_);
}

const float* Linear::prepare_row(const LinearParams& params, std::int64_t m, IndexRange cols,
                                 float* row) const {
  const LinearInput& input = params.input;
  const std::int64_t width = params.weight->cols();
  const float* in = params.in + m * width;
  switch (input.kind) {
    case LinearInput::Kind::kPlain:
      return in;
    case LinearInput::Kind::kSiluMul: {
      const float* gate = in + m * width + cols.begin;
      row_ops_.silu_mul(gate, gate + width, row + cols.begin, cols.size());
      return row;
    }
    case LinearInput::Kind::kSumRmsNorm:
      row_ops_.sum_partials(
          {input.partials, input.merges, params.rows * width, params.in, input.sum},
          {m * width, (m + 1) * width});
      in = input.sum + m * width;
      [[fallthrough]];
    case LinearInput::Kind::kRmsNorm:
      row_ops_.rms_norm({in, input.norm, input.eps, row, 1, width}, {0, 1});
      return row;
  }
  throw FatalError("no input stage {}", static_cast<int>(input.kind));
}

const std::byte* Linear::prepare(const LinearParams& params, const LinearKernels& kernels,
                                 const QuantizedLayout& layout) {
  using Kind = LinearInput::Kind;
  const Kind kind = params.input.kind;
  const bool quantizes = layout.group != 0 || params.weight->format() == WeightFormat::kBf16;
  const std::int64_t cols = params.weight->cols();
  if (kind == Kind::kPlain && !quantizes) return reinterpret_cast<const std::byte*>(params.in);
  if (kind == Kind::kSumRmsNorm) check_merges(params.input.merges);

  // Rows are dealt to threads, and where they are few their columns, but for a norm, which needs
  // them all.
  const std::int64_t worth = kind == Kind::kSiluMul ? kDearElements : kCheapElements;
  const std::int64_t wanted =
      std::clamp<std::int64_t>(params.rows * cols / worth, 1, pool_.threads());
  const std::int64_t row_parts = std::min(wanted, params.rows);
  const std::int64_t group = layout.group != 0 ? layout.group : kFloatGroup;
  const std::int64_t groups = (cols + group - 1) / group;
  const bool whole_rows = kind == Kind::kRmsNorm || kind == Kind::kSumRmsNorm;
  const std::int64_t col_parts =
      whole_rows || groups == 0 ? 1 : std::min(wanted / row_parts, groups);
  const std::int64_t parts = row_parts * col_parts;

  // What is quantized at once is a row at a time, which stays in the thread's nearest cache.
  float* const rows = grow<float>(rows_, (quantizes ? parts : params.rows) * cols);
  std::byte* const quantized =
      grow<std::byte>(quantized_, quantizes ? quantized_bytes(layout, params.rows) : 0);
  pool_.run(static_cast<int>(parts), [&](int part) {
    const IndexRange own = part_of(params.rows, part / col_parts, row_parts);
    const IndexRange own_groups = part_of(groups, part % col_parts, col_parts);
    const IndexRange own_cols{own_groups.begin * group, std::min(own_groups.end * group, cols)};
    for (std::int64_t m = own.begin; m < own.end; ++m) {
      const float* row = prepare_row(params, m, own_cols, rows + (quantizes ? part : m) * cols);
      if (quantizes) {
        kernels.quantize(
            {params.weight->format(), layout, row, quantized, cols, params.rows, m, own_groups});
      }
    }
  });
  return quantizes ? quantized : reinterpret_cast<const std::byte*>(rows);
}

void Linear::linear(const LinearParams& params) {
  const PanelMatrix& weight = panel_matrix(params.weight);
  if (params.rows == 0) return;
  const LinearKernels& kernels = kernels_.of(weight.format(), params.rows);
  ProductTask task;
  task.weight = &weight;
  task.layout = quantized_layout(weight.format(), weight.cols(), kernels.row_block);
  task.in = prepare(params, kernels, task.layout);
  if (weight.rows() == 0) return;
  task.out = params.out;
  task.row_count = params.rows;

  const std::int64_t threads = pool_.threads();
  // Tiles take two panels at once, and read on into the next ones: parts are pairs, and few.
  const std::int64_t pairs = (weight.panels() + 1) / 2;
  const std::int64_t panel_parts = threads == 1 ? 1 : std::min(pairs, 4 * threads);
  const std::int64_t blocks = row_blocks(task.layout, params.rows);
  // Rows are shared out too where there are too few panels for all threads.
  const std::int64_t row_parts = std::clamp<std::int64_t>(
      (2 * threads + panel_parts - 1) / panel_parts, 1, threads == 1 ? 1 : blocks);
  pool_.run(static_cast<int>(panel_parts * row_parts), [&](int part) {
    ProductTask share = task;
    const IndexRange range = part_of(pairs, part / row_parts, panel_parts);
    share.panels = {2 * range.begin, std::min(2 * range.end, weight.panels())};
    share.blocks = part_of(blocks, part % row_parts, row_parts);
    kernels.multiply(share);
  });
}

void Linear::embed(const EmbedParams& params) {
  const PanelMatrix& table = panel_matrix(params.table);
  constexpr std::int64_t kWorthSharing = 16384;
  const std::int64_t parts =
      std::clamp<std::int64_t>(params.rows * table.cols() / kWorthSharing, 1, pool_.threads());
  pool_.run(static_cast<int>(parts), [&](int part) {
    const IndexRange rows = part_of(params.rows, part, parts);
    for (std::int64_t m = rows.begin; m < rows.end; ++m) {
      float* out = params.out + m * table.cols();
      const std::int64_t n = std::int64_t{params.tokens[m]} - params.first_token;
      if (n >= 0 && n < table.rows()) {
        table.decode_row(n, out);
      } else {
        std::fill_n(out, table.cols(), 0.0f);
      }
    }
  });
}

}  // namespace paceline::kernels::cpu
