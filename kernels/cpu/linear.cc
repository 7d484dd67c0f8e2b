#include "kernels/cpu/linear.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/core/host_buffer.h"
#include "kernels/cpu/panel_matrix.h"
#include "kernels/cpu/split.h"

namespace paceline::kernels::cpu {

namespace {

const PanelMatrix& panel_matrix(const PackedMatrix* matrix) {
  const auto* own = dynamic_cast<const PanelMatrix*>(matrix);
  check(own != nullptr, "the matrix was packed by another backend");
  return *own;
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

std::unique_ptr<PackedMatrix> Linear::pack(const HostMatrix& matrix, const Reduction& reduction) {
  return std::make_unique<PanelMatrix>(matrix, reduction, arena_, pool_);
}

const std::byte* Linear::quantize(const LinearParams& params, const LinearKernels& kernels,
                                  const QuantizedLayout& layout) {
  const std::int64_t blocks = row_blocks(layout, params.rows);
  const std::size_t bytes = layout.group == 0
                                ? static_cast<std::size_t>(params.rows) * layout.row_bytes
                                : static_cast<std::size_t>(blocks) * layout.block_bytes;
  if (scratch_.bytes() < bytes) scratch_ = allocate_host(std::max(bytes, 2 * scratch_.bytes()));
  QuantizeTask task{params.weight->format(), layout,      params.in,  scratch_.as<std::byte>(),
                    params.weight->cols(),   params.rows, {0, blocks}};
  // Below this many elements handing work out costs more than it saves.
  constexpr std::int64_t kWorthSharing = 16384;
  const std::int64_t parts = std::clamp<std::int64_t>(
      params.rows * task.cols / kWorthSharing, 1, std::min<std::int64_t>(blocks, pool_.threads()));
  pool_.run(static_cast<int>(parts), [&](int part) {
    QuantizeTask share = task;
    share.blocks = part_of(blocks, part, parts);
    kernels.quantize(share);
  });
  return scratch_.as<const std::byte>();
}

void Linear::linear(const LinearParams& params) {
  const PanelMatrix& weight = panel_matrix(params.weight);
  if (params.rows == 0 || weight.rows() == 0) return;
  const LinearKernels& kernels = kernels_.of(weight.format(), params.rows);
  ProductTask task;
  task.weight = &weight;
  task.layout = quantized_layout(weight.format(), weight.cols(), kernels.row_block);
  task.in = reinterpret_cast<const std::byte*>(params.in);
  if (task.layout.group != 0 || weight.format() == WeightFormat::kBf16) {
    task.in = quantize(params, kernels, task.layout);
  }
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
