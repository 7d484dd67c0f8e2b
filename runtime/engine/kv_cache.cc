#include "runtime/engine/kv_cache.h"

#include <algorithm>

#include "kernels/core/kv_address.h"

namespace paceline::runtime {
namespace {

/// A pool without memory.
kernels::KvPool pool_of(const ModelConfig& config, const ShardPlan& plan,
                        kernels::KvFormat format) {
  return {.format = format,
          .num_layers = static_cast<int>(config.num_layers),
          .num_heads = static_cast<int>(plan.kv_heads.size()),
          .page_size = kPageSize,
          .head_dim = static_cast<int>(config.head_dim)};
}

}  // namespace

std::size_t kv_page_bytes(const ModelConfig& config, const ShardPlan& plan,
                          kernels::KvFormat format) {
  return std::max<std::size_t>(1, kernels::page_bytes(pool_of(config, plan, format)));
}

KvCache::KvCache(const ModelConfig& config, const ShardPlan& plan, kernels::KvFormat format,
                 std::int32_t num_pages, kernels::Backend& backend)
    : pool_(pool_of(config, plan, format)) {
  memory_ = backend.allocate(static_cast<std::size_t>(num_pages) * kernels::page_bytes(pool_));
  pool_.data = memory_.as<std::byte>();
  pool_.num_pages = num_pages;
}

}  // namespace paceline::runtime
