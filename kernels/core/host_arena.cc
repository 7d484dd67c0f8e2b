#include "kernels/core/host_arena.h"

#include <cstdint>
#include <new>
#include <utility>

#include "kernels/core/host_buffer.h"

namespace paceline::kernels {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kBlockBytes = std::size_t{32} << 20;
// What would waste too much of a block's end has memory of its own.
constexpr std::size_t kLargest = kBlockBytes / 8;

}  // namespace

struct HostArena::Block {
  Buffer memory;
  std::size_t used = 0;
  std::size_t users = 0;  // buffers in use, and the arena while this is its block
};

void HostArena::leave(Block* block) {
  if (--block->users == 0) delete block;
}

HostArena::~HostArena() {
  if (block_ != nullptr) leave(block_);
}

// The line before a buffer's data names its block.
Buffer HostArena::allocate(std::size_t bytes) {
  if (bytes == 0 || bytes > kLargest) return allocate_host(bytes);
  const std::size_t needed = kLine + (bytes + kLine - 1) / kLine * kLine;
  if (block_ == nullptr || block_->used + needed > kBlockBytes) {
    auto* next = new Block{.memory = allocate_host(kBlockBytes), .used = 0, .users = 1};
    if (Block* last = std::exchange(block_, next); last != nullptr) leave(last);
  }
  std::byte* at = block_->memory.as<std::byte>() + block_->used;
  block_->used += needed;
  ++block_->users;
  *reinterpret_cast<Block**>(at) = block_;
  return {at + kLine, bytes, [](void* data) {
            if (data == nullptr) return;
            leave(*reinterpret_cast<Block**>(static_cast<std::byte*>(data) - kLine));
          }};
}

}  // namespace paceline::kernels
