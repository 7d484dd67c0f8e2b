#include "parallel/communicator.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/core/error.h"

namespace paceline::parallel {
namespace {

class Single final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string_view exchange() const override { return "single"; }
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::span<const std::size_t> sizes) override {
    check_gather(*this, mine, all, sizes);
    if (mine.data() != all.data() && !mine.empty()) {
      std::memcpy(all.data(), mine.data(), mine.size());
    }
  }
  void gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                     std::span<const std::int64_t> rows,
                     std::span<const std::size_t> slices) override {
    check_slices(*this, mine, out, rows, slices);
    if (!mine.empty()) std::memcpy(out.data(), mine.data(), mine.size());
  }
  void broadcast(std::span<std::byte> /*data*/, int root) override {
    check(root == 0, "a group of one has no rank {}", root);
  }
  void barrier() override {}
};

}  // namespace

std::unique_ptr<Communicator> make_single() { return std::make_unique<Single>(); }

std::string join_names(const MemberNames& names, const std::vector<bool>& missing) {
  std::string joined;
  for (std::size_t member = 0; member < names.size(); ++member) {
    if (!missing[member]) continue;
    if (!joined.empty()) joined += " and ";
    joined += names[member];
  }
  return joined;
}

std::size_t check_gather(const Communicator& group, std::span<const std::byte> mine,
                         std::span<std::byte> all, std::span<const std::size_t> sizes) {
  check(sizes.size() == static_cast<std::size_t>(group.size()), "all_gather: {} sizes for {} ranks",
        sizes.size(), group.size());
  std::size_t total = 0;
  std::size_t place = 0;
  for (int rank = 0; rank < group.size(); ++rank) {
    if (rank == group.rank()) place = total;
    total += sizes[rank];
  }
  check(mine.size() == sizes[group.rank()] && all.size() == total,
        "all_gather: {} bytes of {} given, {} of {} expected", mine.size(), all.size(),
        sizes[group.rank()], total);
  return place;
}

std::size_t check_slices(const Communicator& group, std::span<const std::byte> mine,
                         std::span<std::byte> out, std::span<const std::int64_t> rows,
                         std::span<const std::size_t> slices) {
  const auto size = static_cast<std::size_t>(group.size());
  check(rows.size() == size && slices.size() == size,
        "gather_slices: rows of {} and slices for {} ranks, expected {}", rows.size(),
        slices.size(), size);
  const std::size_t row_bytes = std::reduce(slices.begin(), slices.end());
  const auto own_rows = static_cast<std::size_t>(rows[group.rank()]);
  const auto all_rows = static_cast<std::size_t>(std::reduce(rows.begin(), rows.end()));
  const std::size_t received = all_rows * slices[group.rank()];
  check(mine.size() == own_rows * row_bytes && out.size() == received,
        "gather_slices: {} bytes for {} given, {} for {} expected", mine.size(), out.size(),
        own_rows * row_bytes, received);
  return row_bytes;
}

RowSlice slice_of(std::span<const std::byte> rows, std::size_t row_bytes,
                  std::span<const std::size_t> slices, int r) {
  return {rows, row_bytes, std::reduce(slices.begin(), slices.begin() + r), slices[r]};
}

void RowSlice::copy(std::size_t from, std::span<std::byte> to) const {
  while (!to.empty()) {
    const std::size_t column = from % bytes;
    const std::size_t length = std::min(bytes - column, to.size());
    std::memcpy(to.data(), rows.data() + from / bytes * row_bytes + begin + column, length);
    from += length;
    to = to.subspan(length);
  }
}

}  // namespace paceline::parallel
