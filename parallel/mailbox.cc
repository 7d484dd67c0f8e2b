#include "parallel/mailbox.h"

#include <algorithm>
#include <climits>
#include <deque>
#include <list>
#include <map>

#include "parallel/mpi_checks.h"

namespace paceline::parallel {
namespace {

struct Transfer {
  int peer = 0;
  std::vector<std::byte> bytes;
  MPI_Request request = MPI_REQUEST_NULL;

  bool finished() {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done != 0;
  }
};

}  // namespace

struct Mailbox::Traffic {
  std::list<Transfer> leaving;  // a list: transfers under way must not move
  std::map<int, std::deque<std::unique_ptr<Transfer>>> arriving;  // by tag, in order of arrival

  void drop_finished() {
    leaving.remove_if([](Transfer& transfer) { return transfer.finished(); });
  }
};

Mailbox::Mailbox(const RankState& state) : state_(state), traffic_(std::make_unique<Traffic>()) {}
Mailbox::~Mailbox() = default;

void Mailbox::send(int destination, int tag, std::vector<std::byte> bytes) {
  check(bytes.size() <= INT_MAX, "a message of {} bytes is too long", bytes.size());
  Transfer& transfer = traffic_->leaving.emplace_back();
  transfer.peer = destination;
  transfer.bytes = std::move(bytes);
  check_mpi(MPI_Isend(transfer.bytes.data(), static_cast<int>(transfer.bytes.size()), MPI_BYTE,
                      destination, kFirstMailTag + tag, MPI_COMM_WORLD, &transfer.request),
            "MPI_Isend");
  traffic_->drop_finished();
}

std::optional<Message> Mailbox::try_receive(int tag) {
  traffic_->drop_finished();
  auto& arriving = traffic_->arriving[tag];
  for (;;) {
    int found = 0;
    MPI_Message announced = MPI_MESSAGE_NULL;
    MPI_Status status;
    check_mpi(MPI_Improbe(MPI_ANY_SOURCE, kFirstMailTag + tag, MPI_COMM_WORLD, &found, &announced,
                          &status),
              "MPI_Improbe");
    if (found == 0) break;
    int bytes = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
    auto transfer = std::make_unique<Transfer>();
    transfer->peer = status.MPI_SOURCE;
    transfer->bytes.resize(static_cast<std::size_t>(bytes));
    check_mpi(MPI_Imrecv(transfer->bytes.data(), bytes, MPI_BYTE, &announced, &transfer->request),
              "MPI_Imrecv");
    arriving.push_back(std::move(transfer));
  }
  // The first that is complete, unless an earlier one of the same source is still on its way.
  std::vector<int> waiting_for;
  for (auto it = arriving.begin(); it != arriving.end(); ++it) {
    Transfer& transfer = **it;
    if (std::ranges::count(waiting_for, transfer.peer) == 0 && transfer.finished()) {
      Message message{transfer.peer, std::move(transfer.bytes)};
      arriving.erase(it);
      return message;
    }
    waiting_for.push_back(transfer.peer);
  }
  return std::nullopt;
}

void Mailbox::flush() {
  Wait wait(state_);
  for (;;) {
    traffic_->drop_finished();
    if (traffic_->leaving.empty()) return;
    if (!wait.rest()) {
      throw FatalError("{}", wait.complaint(fmt::format("rank {} to take its messages",
                                                        traffic_->leaving.front().peer)));
    }
  }
}

}  // namespace paceline::parallel
