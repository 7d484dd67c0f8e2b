#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/api.h"
#include "runtime/model/shard_plan.h"

namespace paceline::runtime {

/// Slots per page of the key/value cache.
inline constexpr int kPageSize = 64;

/// One rank's cache memory.
class KvCache {
 public:
  KvCache(const ModelConfig& config, const ShardPlan& plan, kernels::KvFormat format,
          std::int32_t num_pages, kernels::Backend& backend);
  const kernels::KvPool& pool() const { return pool_; }

 private:
  kernels::Buffer memory_;
  kernels::KvPool pool_;
};

/// Bytes of one page on the rank of `plan`; at least 1, also for a rank without heads.
std::size_t kv_page_bytes(const ModelConfig& config, const ShardPlan& plan,
                          kernels::KvFormat format);

}  // namespace paceline::runtime
