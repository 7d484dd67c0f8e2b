#include "runtime/engine/kv_pages.h"

#include "kernels/core/error.h"

namespace paceline::runtime {

KvPages::KvPages(std::int32_t num_pages) : references_(static_cast<std::size_t>(num_pages), 0) {
  free_.reserve(references_.size());
  for (std::int32_t page = num_pages; page-- > 0;) free_.push_back(page);
}

std::int32_t KvPages::acquire() {
  check(!free_.empty(), "no free page in a cache of {}", size());
  const std::int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<std::size_t>(page)] = 1;
  return page;
}

void KvPages::share(std::int32_t page) {
  std::int32_t& count = references_.at(static_cast<std::size_t>(page));
  check(count > 0, "page {} is shared while it is free", page);
  ++count;
}

void KvPages::release(std::int32_t page) {
  std::int32_t& count = references_.at(static_cast<std::size_t>(page));
  check(count > 0, "page {} is released while it is free", page);
  if (--count == 0) free_.push_back(page);
}

}  // namespace paceline::runtime
