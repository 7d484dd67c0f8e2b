#include "kernels/cuda/host_copies.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/cuda/backend.h"

namespace paceline::kernels {
namespace {

std::vector<std::uint32_t> numbers(std::size_t count, std::uint32_t from) {
  std::vector<std::uint32_t> values(count);
  std::iota(values.begin(), values.end(), from);
  return values;
}

std::vector<std::uint32_t> read(Backend& backend, const Buffer& buffer) {
  std::vector<std::uint32_t> values(buffer.bytes() / sizeof(std::uint32_t));
  backend.download(values.data(), buffer.as<void>(), buffer.bytes());
  return values;
}

// Small and large, more than the ring holds at a time; what they come from is gone at once.
TEST(CudaUploads, AreWhatTheHostHadWhenItAsked) {
  constexpr std::size_t kHalf = cuda::UploadRing::kHalfBytes / sizeof(std::uint32_t);
  const auto backend = make_cuda_backend({});
  const std::vector<std::size_t> counts = {1, 3,          kHalf / 2, kHalf / 3, kHalf,
                                           7, kHalf + 10, kHalf / 2, kHalf / 2, 5};
  std::vector<Buffer> buffers;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    buffers.push_back(backend->allocate(counts[i] * sizeof(std::uint32_t)));
    std::vector<std::uint32_t> values = numbers(counts[i], static_cast<std::uint32_t>(i));
    backend->upload(buffers[i].as<void>(), values.data(), values.size() * sizeof(std::uint32_t));
    std::ranges::fill(values, 77u);
  }
  for (std::size_t i = 0; i < counts.size(); ++i) {
    EXPECT_TRUE(read(*backend, buffers[i]) == numbers(counts[i], static_cast<std::uint32_t>(i)))
        << i;
  }
}

// What is put on the stream behind a readback is not what it brings.
TEST(CudaReadback, BringsWhatStoodThereWhenItWasStarted) {
  const auto backend = make_cuda_backend({});
  const Buffer first = backend->allocate(8), second = backend->allocate(4);
  const auto fill = [&](std::uint32_t from) {
    const std::vector<std::uint32_t> values = numbers(3, from);
    backend->upload(first.as<void>(), values.data(), 8);
    backend->upload(second.as<void>(), values.data() + 2, 4);
  };
  const auto early = backend->make_readback(), late = backend->make_readback();
  const auto parts_of = [&](std::size_t of_first) {
    return std::vector<Readback::Part>{
        {first.as<void>(), of_first}, {nullptr, 0}, {second.as<void>(), 4}};
  };
  const auto words = [](const std::byte* bytes, std::size_t count) {
    std::vector<std::uint32_t> values(count);
    std::memcpy(values.data(), bytes, count * sizeof(std::uint32_t));
    return values;
  };
  for (const std::uint32_t round : {10u, 20u}) {  // the same memory again
    fill(round);
    early->start(parts_of(8));
    fill(round + 5);
    late->start(parts_of(4));
    EXPECT_EQ(words(early->wait(), 3), (std::vector{round, round + 1, round + 2}));
    EXPECT_EQ(words(late->wait(), 2), (std::vector{round + 5, round + 7}));
  }
}

}  // namespace
}  // namespace paceline::kernels
