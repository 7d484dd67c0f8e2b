#pragma once

#include <cstdint>
#include <vector>

namespace paceline::runtime {

/// Hands out the pages of the key/value cache, counted by reference so that sequences with equal
/// prefixes can share them. Deterministic: the same calls give the same pages, so every rank's page
/// tables agree without a word. The page freed last is handed out first, which keeps the part of
/// the cache that is ever touched small.
class KvPages {
 public:
  explicit KvPages(std::int32_t num_pages);

  std::int32_t size() const { return static_cast<std::int32_t>(references_.size()); }
  std::int32_t free_pages() const { return static_cast<std::int32_t>(free_.size()); }

  /// A page with one reference; throws FatalError if none is free (the scheduler reserves first).
  std::int32_t acquire();
  /// One more reference to a page in use.
  void share(std::int32_t page);
  /// One reference less; at none the page is free again.
  void release(std::int32_t page);

 private:
  std::vector<std::int32_t> free_;        // a stack
  std::vector<std::int32_t> references_;  // [num_pages]
};

}  // namespace paceline::runtime
