#include "parallel/mpi_group.h"

#include <algorithm>
#include <cstring>

#include "parallel/mpi_checks.h"

namespace paceline::parallel {
namespace {

constexpr std::size_t kLongestMessage = std::size_t{1} << 30;  // MPI counts in int

class MpiGroup final : public Communicator {
 public:
  MpiGroup(std::vector<int> world_ranks, int rank, MemberNames names, const RankState& state)
      : world_ranks_(std::move(world_ranks)),
        names_(std::move(names)),
        state_(state),
        rank_(rank),
        one_byte_each_(world_ranks_.size(), 1),
        arrivals_(world_ranks_.size()) {
    check(names_.size() == world_ranks_.size() && 0 <= rank && rank < size(),
          "rank {} of a group of {} with {} names", rank, size(), names_.size());
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(world_ranks_.size()); }
  std::string_view exchange() const override { return "MPI"; }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::span<const std::size_t> sizes) override {
    const std::size_t place = check_gather(*this, mine, all, sizes);
    std::size_t begin = 0;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank_) receive(all.subspan(begin, sizes[peer]), peer, kGatherTag);
      begin += sizes[peer];
    }
    for (int step = 1; step < size(); ++step) {  // the next rank first, so as not to crowd one
      send(mine, (rank_ + step) % size(), kGatherTag);
    }
    if (mine.data() != all.data() + place && !mine.empty()) {
      std::memcpy(all.data() + place, mine.data(), mine.size());
    }
    complete();
  }

  void gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                     std::span<const std::int64_t> rows,
                     std::span<const std::size_t> slices) override {
    const std::size_t row_bytes = check_slices(*this, mine, out, rows, slices);
    const std::size_t own = slices[rank_];
    std::size_t place = 0;
    for (int peer = 0; peer < size(); ++peer) {
      for (std::int64_t row = 0; row < rows[peer]; ++row) {
        const std::span<std::byte> to = out.subspan(place, own);
        if (peer != rank_) receive(to, peer, kSliceTag);
        if (peer == rank_) slice_of(mine, row_bytes, slices, peer).copy(row * own, to);
        place += own;
      }
    }
    for (int step = 1; step < size(); ++step) {  // the next rank first, so as not to crowd one
      const int peer = (rank_ + step) % size();
      const std::size_t begin = slice_of(mine, row_bytes, slices, peer).begin;
      for (std::int64_t row = 0; row < rows[rank_]; ++row) {
        send(mine.subspan(row * row_bytes + begin, slices[peer]), peer, kSliceTag);
      }
    }
    complete();
  }

  void broadcast(std::span<std::byte> data, int root) override {
    check(0 <= root && root < size(), "broadcast: no rank {} among {}", root, size());
    if (rank_ != root) {
      receive(data, root, kBroadcastTag);
    } else {
      for (int peer = 0; peer < size(); ++peer) {
        if (peer != root) send(data, peer, kBroadcastTag);
      }
    }
    complete();
  }

  void barrier() override {
    const std::byte here{};
    all_gather({&here, 1}, arrivals_, one_byte_each_);
  }

 private:
  void receive(std::span<std::byte> data, int peer, int tag) {
    for (std::size_t done = 0; done < data.size(); done += kLongestMessage) {
      const std::size_t bytes = std::min(kLongestMessage, data.size() - done);
      check_mpi(MPI_Irecv(data.data() + done, static_cast<int>(bytes), MPI_BYTE, world_ranks_[peer],
                          tag, MPI_COMM_WORLD, &add_request(peer)),
                "MPI_Irecv");
    }
  }

  void send(std::span<const std::byte> data, int peer, int tag) {
    for (std::size_t done = 0; done < data.size(); done += kLongestMessage) {
      const std::size_t bytes = std::min(kLongestMessage, data.size() - done);
      check_mpi(MPI_Isend(data.data() + done, static_cast<int>(bytes), MPI_BYTE, world_ranks_[peer],
                          tag, MPI_COMM_WORLD, &add_request(peer)),
                "MPI_Isend");
    }
  }

  MPI_Request& add_request(int peer) {
    peers_.push_back(peer);
    return requests_.emplace_back(MPI_REQUEST_NULL);
  }

  void complete() {
    Wait wait(state_);
    for (;;) {
      int done = 0;
      check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                            MPI_STATUSES_IGNORE),
                "MPI_Testall");
      if (done != 0) break;
      if (wait.rest()) continue;
      const std::vector<bool> missing = unfinished();
      if (std::ranges::count(missing, true) == 0) break;
      throw FatalError("{}", wait.complaint(join_names(names_, missing)));
    }
    requests_.clear();
    peers_.clear();
  }

  std::vector<bool> unfinished() {
    std::vector<bool> missing(names_.size());
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      int done = 0;
      check_mpi(MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done == 0) missing[peers_[i]] = true;
    }
    return missing;
  }

  std::vector<int> world_ranks_;
  MemberNames names_;
  const RankState& state_;
  int rank_;
  std::vector<std::size_t> one_byte_each_;
  std::vector<std::byte> arrivals_;
  std::vector<MPI_Request> requests_;  // under way, and with whom
  std::vector<int> peers_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_group(std::vector<int> world_ranks, int rank,
                                             MemberNames names, const RankState& state) {
  return std::make_unique<MpiGroup>(std::move(world_ranks), rank, std::move(names), state);
}

}  // namespace paceline::parallel
