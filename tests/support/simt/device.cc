#include "tests/support/simt/device.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/simt/include/cuda_runtime.h"
#include "tests/support/simt/memory.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace paceline::simt {
namespace {

// AddressSanitizer makes frames several times as large.
constexpr std::size_t kStackBytes = std::size_t{256} << 10;

/// What outlives a launch.
struct Device {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::mt19937_64 random;
  Block* block = nullptr;
  std::mutex mutex;
  std::atomic<std::thread::id> runs_on{};
};

Device& device() {
  static Device the_device;
  return the_device;
}

std::size_t volume(Index3 size) { return std::size_t{size.x} * size.y * size.z; }

}  // namespace

Order::Order(std::uint64_t seed) { device().random.seed(seed); }

Order::~Order() { device().random.seed(std::mt19937_64::default_seed); }

Block& current_block() {
  if (device().block == nullptr) throw Error("a kernel's function is called outside of a kernel");
  return *device().block;
}

void run_grid(Index3 grid, Index3 block, std::size_t shared_bytes,
              const std::function<void()>& kernel) {
  Device& on = device();
  if (on.runs_on == std::this_thread::get_id()) {
    throw Error("a kernel is launched while another runs");
  }
  const std::lock_guard lock(on.mutex);
  on.runs_on = std::this_thread::get_id();
  while (on.fibers.size() < volume(block)) {
    on.fibers.push_back(std::make_unique<Fiber>(kStackBytes));
  }
  const std::span<const std::unique_ptr<Fiber>> fibers(on.fibers.data(), volume(block));
  std::vector<std::size_t> blocks(volume(grid));
  std::iota(blocks.begin(), blocks.end(), std::size_t{0});
  std::ranges::shuffle(blocks, on.random);
  blockDim = dim3(block.x, block.y, block.z);
  gridDim = dim3(grid.x, grid.y, grid.z);
  struct Finish {
    Device& of;
    ~Finish() {
      of.block = nullptr;
      of.runs_on = std::thread::id();
    }
  } const finish{on};
  const HostAccess access;
  for (const std::size_t linear : blocks) {
    const Index3 index{static_cast<unsigned>(linear % grid.x),
                       static_cast<unsigned>(linear / grid.x % grid.y),
                       static_cast<unsigned>(linear / grid.x / grid.y)};
    blockIdx = {index.x, index.y, index.z};
    Block running(block, index, shared_bytes, fibers, on.random);
    on.block = &running;
    running.run(kernel);
    on.block = nullptr;
  }
}

}  // namespace paceline::simt
