// What mpi_test.cc runs under mpirun: one mode per test. Prints "ok" once where a mode succeeds.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/placement.h"
#include "parallel/world.h"
#include "tests/parallel/layer_stack.h"

namespace paceline::parallel {
namespace {

using Bytes = std::vector<std::byte>;

Bytes pattern(int rank, std::size_t size, int round) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>((rank * 101 + static_cast<int>(i % 251) * 7 + round) & 0xff);
  }
  return bytes;
}

void gather_and_compare(Communicator& group, std::size_t scale, int round) {
  std::vector<std::size_t> sizes;
  Bytes expected;
  for (int rank = 0; rank < group.size(); ++rank) {
    sizes.push_back(rank == 1 ? 0 : scale * (rank + 1));
    const Bytes block = pattern(rank, sizes.back(), round);
    expected.insert(expected.end(), block.begin(), block.end());
  }
  Bytes all(expected.size());
  group.all_gather(pattern(group.rank(), sizes[group.rank()], round), all, sizes);
  check(all == expected, "all_gather of {} times {} bytes went wrong", group.size(), scale);
}

// Rank r has r + 1 rows of slices of scale, 2 * scale, ... bytes.
void gather_slices_and_compare(Communicator& group, std::size_t scale, int round) {
  std::vector<std::int64_t> rows;
  std::vector<std::size_t> slices;
  std::size_t row_bytes = 0;
  for (int rank = 0; rank < group.size(); ++rank) {
    rows.push_back(rank + 1);
    slices.push_back(scale * rank);  // nothing for rank 0
    row_bytes += slices.back();
  }
  const std::size_t begin = std::accumulate(slices.begin(), slices.begin() + group.rank(), 0ul);
  Bytes expected;
  for (int rank = 0; rank < group.size(); ++rank) {
    const Bytes all_rows = pattern(rank, rows[rank] * row_bytes, round);
    for (std::int64_t row = 0; row < rows[rank]; ++row) {
      const auto slice = all_rows.begin() + row * row_bytes + begin;
      expected.insert(expected.end(), slice, slice + slices[group.rank()]);
    }
  }
  Bytes out(expected.size());
  group.gather_slices(pattern(group.rank(), rows[group.rank()] * row_bytes, round), out, rows,
                      slices);
  check(out == expected, "gather_slices of {} times {} bytes went wrong", group.size(), scale);
}

void collectives(World& world) {
  for (int tp = 1; tp <= world.size(); ++tp) {
    if (world.size() % tp != 0) continue;
    for (const Exchange exchange : {Exchange::kShared, Exchange::kMpi, Exchange::kAuto}) {
      const auto group = world.split_replicas(tp, exchange);
      check(group->size() == tp && group->rank() == world.rank() % tp, "wrong replica");
      check(tp == 1 || exchange == Exchange::kMpi || group->exchange() == "shared memory",
            "one node's ranks exchange by {}", group->exchange());
      for (int round = 0; round < 20; ++round) {
        for (const std::size_t scale : {1, 1000, 100000}) gather_and_compare(*group, scale, round);
        if (round < 3) {
          for (const std::size_t scale : {1, 3000}) {
            gather_slices_and_compare(*group, scale, round);
          }
        }
        const int root = round % tp;
        Bytes data = pattern(group->rank(), 5000, round);
        group->broadcast(data, root);
        check(data == pattern(root, 5000, round), "broadcast went wrong");
        group->barrier();
      }
    }
  }
  gather_and_compare(world.all(), 10, 0);
}

// Every rank, 0 included, sends three messages to rank 0, which sends each back.
void mail(World& world) {
  const std::vector<std::size_t> sizes = {0, 17, 5'000'000};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    world.mailbox().send(0, 3, pattern(world.rank(), sizes[i], static_cast<int>(i)));
  }
  std::vector<std::size_t> next(world.size(), 0);
  std::size_t to_serve = world.rank() == 0 ? sizes.size() * world.size() : 0;
  std::size_t answered = 0;
  while (to_serve > 0 || answered < sizes.size()) {
    if (to_serve > 0) {
      if (auto message = world.mailbox().try_receive(3)) {
        const std::size_t i = next[message->source]++;
        check(message->bytes == pattern(message->source, sizes[i], static_cast<int>(i)),
              "message {} of rank {} is not what it sent", i, message->source);
        world.mailbox().send(message->source, 4, std::move(message->bytes));
        --to_serve;
      }
    }
    if (auto answer = world.mailbox().try_receive(4)) {
      check(answer->source == 0 && answer->bytes.size() == sizes[answered], "wrong answer");
      ++answered;
    }
    std::this_thread::yield();
  }
}

// The launcher may have bound each rank to one core; together they may use all of the node's.
void places(World& world) {
  const Placement placement =
      place(find_cores(world.node_cpus()), world.local_rank(), world.local_size(), 0, cpu_quota());
  bind(placement);
  std::vector<int> everywhere(world.size());
  const int cpus = static_cast<int>(world.node_cpus().size());
  world.all().all_gather(std::as_bytes(std::span(&cpus, 1)),
                         std::as_writable_bytes(std::span(everywhere)),
                         std::vector<std::size_t>(world.size(), sizeof(int)));
  for (const int count : everywhere) check(count == cpus, "ranks disagree on the node's CPUs");
  fmt::print("rank {} of {} CPUs: {}\n", world.rank(), cpus, placement.text);
  std::fflush(stdout);
}

void late(World& world, Exchange exchange) {
  const auto group = world.split_replicas(world.size(), exchange);
  world.enter("decode", std::chrono::milliseconds(300));
  if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  group->barrier();
}

// Until killed: `stuck` ranks never call MPI or the group.
void loop(World& world, Exchange exchange, const std::string& phase, bool stuck) {
  const auto group = world.split_replicas(world.size(), exchange);
  world.enter(phase);
  group->barrier();
  fmt::print("rank {} is {}\n", world.rank(), getpid());
  std::fflush(stdout);
  while (!stuck) {
    group->barrier();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (;;) pause();
}

// The split layers over all ranks give the bits that one rank alone gives.
void layers(World& world) {
  const std::vector<std::int32_t> tokens = {0, 99, 17, 17, 64};
  for (const auto format : {kernels::WeightFormat::kFp32, kernels::WeightFormat::kInt4Group}) {
    const LayerStack stack{.format = format};
    const std::vector<float> expected = stack.logits(*make_single(), tokens);
    for (const Exchange exchange : {Exchange::kShared, Exchange::kMpi}) {
      const auto group = world.split_replicas(world.size(), exchange);
      check(stack.logits(*group, tokens) == expected, "{} ranks by {} give other logits",
            world.size(), group->exchange());
    }
  }
}

void latency(World& world) {
  using Clock = std::chrono::steady_clock;
  for (const Exchange exchange : {Exchange::kShared, Exchange::kMpi}) {
    const auto group = world.split_replicas(world.size(), exchange);
    for (const std::size_t bytes : {2048, 4096, 65536, 1 << 20}) {
      Bytes all(bytes * group->size());
      const auto mine = std::span(all).subspan(bytes * group->rank(), bytes);
      const std::vector<std::size_t> sizes(group->size(), bytes);
      const int rounds = bytes > 100000 ? 500 : 5000;
      double best = 1e9;
      for (int trial = 0; trial < 5; ++trial) {
        group->barrier();
        const auto start = Clock::now();
        for (int round = 0; round < rounds; ++round) group->all_gather(mine, all, sizes);
        best = std::min(
            best, std::chrono::duration<double, std::micro>(Clock::now() - start).count() / rounds);
      }
      if (world.rank() == 0) {
        fmt::print("{:>13}: {} ranks, {:>7} bytes each, {:.2f} us\n", group->exchange(),
                   world.size(), bytes, best);
      }
    }
  }
}

void run(World& world, const std::vector<std::string>& arguments) {
  const std::string& mode = arguments.at(0);
  const auto exchange = [&] { return parse_exchange(arguments.at(1)); };
  if (mode == "collectives") return collectives(world);
  if (mode == "layers") return layers(world);
  if (mode == "places") return places(world);
  if (mode == "mail") return mail(world);
  if (mode == "late") return late(world, exchange());
  if (mode == "loop") return loop(world, exchange(), arguments.at(2), false);
  if (mode == "stuck") return loop(world, exchange(), arguments.at(2), true);
  if (mode == "latency") return latency(world);
  if (mode == "split") {
    world.split_replicas(std::stoi(arguments.at(1)));
    return;
  }
  if (mode == "throw") {
    world.enter("load");
    if (world.rank() == world.size() - 1) throw FatalError("the weights are gone");
    return world.all().barrier();
  }
  throw ConfigError("no mode {}", mode);
}

}  // namespace
}  // namespace paceline::parallel

int main(int argc, char** argv) {
  using namespace paceline::parallel;
  Signals signals;
  World world(signals);
  try {
    run(world, {argv + 1, argv + argc});
  } catch (const paceline::ConfigError& error) {
    if (world.rank() == 0) fmt::print(stderr, "{}\n", error.what());
    return 2;
  } catch (const paceline::FatalError& error) {
    world.abort(1, error.what());
  }
  if (world.rank() == 0) fmt::print("ok\n");
  return 0;
}
