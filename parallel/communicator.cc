#include "parallel/communicator.h"

#include <cstring>

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

}  // namespace paceline::parallel
