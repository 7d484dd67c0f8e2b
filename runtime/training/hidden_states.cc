#include "runtime/training/hidden_states.h"

#include <algorithm>
#include <memory>

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"
#include "runtime/engine/kv_pages.h"

namespace paceline::runtime {
namespace {

/// Lays texts out in batches, one after the other; only the last text of a batch may go on in the
/// next.
class TextPacker {
 public:
  TextPacker(std::span<const FedText> texts, std::int32_t num_pages) : texts_(texts) {
    for (const FedText& text : texts) {
      check(pages_for(std::ssize(text.tokens)) <= num_pages,
            "a text of {} tokens does not fit a cache of {} pages", text.tokens.size(), num_pages);
    }
    pages_ = std::make_unique<KvPages>(num_pages);
  }

  /// False: nothing is left.
  bool next(std::int32_t most_rows, PackedBatch& batch) {
    batch = {};
    tables_.clear();
    for (std::vector<std::int32_t>& pages : closed_) {
      for (const std::int32_t page : pages) pages_->release(page);
    }
    closed_.clear();
    while (at_ < texts_.size() && batch.size() < most_rows) {
      if (!add_rows(most_rows - static_cast<std::int32_t>(batch.size()), batch)) break;
    }
    for (const auto& table : tables_) {
      batch.page_stride = std::max(batch.page_stride, std::ssize(table));
    }
    for (auto& table : tables_) {
      table.resize(static_cast<std::size_t>(batch.page_stride), -1);
      batch.page_table.insert(batch.page_table.end(), table.begin(), table.end());
    }
    return batch.size() > 0;
  }

 private:
  static std::int64_t pages_for(std::int64_t tokens) {
    return (tokens + kPageSize - 1) / kPageSize;
  }

  // Rows of the text that is next; false if no page is free for one.
  bool add_rows(std::int32_t most, PackedBatch& batch) {
    const FedText& text = texts_[at_];
    const auto length = static_cast<std::int32_t>(text.tokens.size());
    const auto slots = static_cast<std::int64_t>(open_.size() + pages_->free_pages()) * kPageSize;
    const auto end = static_cast<std::int32_t>(
        std::min<std::int64_t>({length, std::int64_t{row_} + most, slots}));
    if (end == row_ && length > 0) return false;
    while (std::ssize(open_) < pages_for(end)) open_.push_back(pages_->acquire());
    const auto sequence = static_cast<std::int32_t>(tables_.size());
    for (; row_ < end; ++row_) {
      if (row_ >= text.first_row) {
        batch.sampled_rows.push_back(static_cast<std::int32_t>(batch.size()));
      }
      batch.tokens.push_back(text.tokens[static_cast<std::size_t>(row_)]);
      batch.positions.push_back(row_);
      batch.rows.push_back({.sequence = sequence,
                            .position = row_,
                            .slot = row_,
                            .base = row_ + 1,
                            .first_ancestor = 0});
    }
    tables_.push_back(open_);
    if (end == length) {
      closed_.push_back(std::move(open_));
      open_.clear();
      row_ = 0;
      ++at_;
    }
    return true;
  }

  std::span<const FedText> texts_;
  std::unique_ptr<KvPages> pages_;
  std::size_t at_ = 0;                             // the text whose rows are next
  std::int32_t row_ = 0;                           // its next row
  std::vector<std::int32_t> open_;                 // its pages
  std::vector<std::vector<std::int32_t>> closed_;  // of texts that the last batch ended
  std::vector<std::vector<std::int32_t>> tables_;  // of the batch's sequences
};

}  // namespace

void HiddenStates::append(std::span<const FedText> texts, std::vector<float>& hidden) {
  const std::size_t width = hidden_size();
  std::size_t rows = 0;
  for (const FedText& text : texts) {
    rows += text.tokens.size() - static_cast<std::size_t>(text.first_row);
  }
  hidden.reserve(hidden.size() + rows * width);
  TextPacker packer(texts, cache_.pool().num_pages);
  while (packer.next(rows_at_once_, batch_)) {
    const float* states = model_.forward(batch_, cache_.pool());
    const std::size_t before = hidden.size();
    hidden.resize(before + batch_.sampled_rows.size() * width);
    backend_.download(hidden.data() + before, states, (hidden.size() - before) * sizeof(float));
  }
}

void HiddenStates::append_embedding(std::span<const std::int32_t> tokens,
                                    std::vector<float>& rows) {
  const std::size_t width = hidden_size();
  for (std::size_t begin = 0; begin < tokens.size(); begin += rows_at_once_) {
    const auto part =
        tokens.subspan(begin, std::min<std::size_t>(rows_at_once_, tokens.size() - begin));
    const std::int32_t* ids = kernels::upload<std::int32_t>(backend_, tokens_, part);
    float* embedded = kernels::reserve<float>(backend_, embedded_,
                                              static_cast<std::int64_t>(part.size() * width));
    model_.embed(ids, embedded, std::ssize(part));
    const std::size_t before = rows.size();
    rows.resize(before + part.size() * width);
    backend_.download(rows.data() + before, embedded, (rows.size() - before) * sizeof(float));
  }
}

}  // namespace paceline::runtime
