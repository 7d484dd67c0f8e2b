#include "runtime/engine/kv_cache.h"

#include <algorithm>

namespace paceline::runtime {
namespace {

std::size_t page_bytes(const ModelConfig& config, const ShardPlan& plan, kernels::KvFormat format) {
  const std::size_t element = format == kernels::KvFormat::kFp32 ? 4 : 2;
  return static_cast<std::size_t>(config.num_layers * 2 * plan.kv_heads.size() * kPageSize *
                                  config.head_dim) *
         element;
}

}  // namespace

std::size_t kv_page_bytes(const ModelConfig& config, const ShardPlan& plan,
                          kernels::KvFormat format) {
  return std::max<std::size_t>(1, page_bytes(config, plan, format));
}

KvCache::KvCache(const ModelConfig& config, const ShardPlan& plan, kernels::KvFormat format,
                 std::int32_t num_pages, kernels::Backend& backend)
    : memory_(backend.allocate(static_cast<std::size_t>(num_pages) *
                               page_bytes(config, plan, format))) {
  pool_ = {.data = memory_.as<std::byte>(),
           .format = format,
           .num_layers = static_cast<int>(config.num_layers),
           .num_heads = static_cast<int>(plan.kv_heads.size()),
           .page_size = kPageSize,
           .head_dim = static_cast<int>(config.head_dim),
           .num_pages = num_pages};
}

}  // namespace paceline::runtime
