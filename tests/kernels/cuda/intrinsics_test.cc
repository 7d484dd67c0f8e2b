#include "kernels/cuda/intrinsics.h"

#include <gtest/gtest.h>
#include <test_device.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_layout.h"
#include "tests/kernels/linear_cases.h"

namespace paceline::kernels::cuda {
namespace {

__global__ void widen_fp8_kernel(std::uint32_t* halves) {
  join_stream();
  const std::uint32_t code = threadIdx.x;
  halves[code] = widen_fp8x2(code | (255 - code) << 8);
}

TEST(CudaFp8, EveryCodeWidensExactly) {
  std::vector<std::uint32_t> halves(256);
  launch("widen", {1, 256}, nullptr, widen_fp8_kernel, halves.data());
  for (std::uint32_t code = 0; code < 256; ++code) {
    for (const bool high : {false, true}) {
      const auto of = static_cast<std::uint8_t>(high ? 255 - code : code);
      if ((of & 0x7f) == 0x7f) continue;  // NaN, which GPUs before sm_89 do not keep
      EXPECT_EQ(halves[code] >> (high ? 16 : 0) & 0xffff, fp32_to_fp16(fp8_to_fp32(of))) << code;
    }
  }
}

__global__ void widen_int8_kernel(std::uint32_t* halves) {
  join_stream();
  const std::uint32_t byte = threadIdx.x;
  halves[byte] = widen_int8x2(pick_bytes(byte | 0x55aa00, 0x99000077 | (255 - byte) << 8, 0x1500));
}

TEST(CudaInt8, EveryByteWidensExactly) {
  std::vector<std::uint32_t> halves(256);
  launch("widen", {1, 256}, nullptr, widen_int8_kernel, halves.data());
  for (int byte = 0; byte < 256; ++byte) {
    const auto bf16 = [](int bits) {
      return std::uint32_t{fp32_to_bf16(static_cast<float>(static_cast<std::int8_t>(bits)))};
    };
    EXPECT_EQ(halves[byte], bf16(byte) | bf16(255 - byte) << 16) << byte;
  }
}

__global__ void bytes_kernel(std::uint32_t* words) {
  join_stream();
  words[0] = pick_bytes(0x33221100, 0x77665544, 0x5410);
  words[1] = pick_bytes(0x33221100, 0x77665544, 0x7632);
  words[2] = pick_bytes(0x33221100, 0x77665544, 0x0246);
  words[3] = round_bf16x2(1.0f, -2.0f);
  words[4] = round_bf16x2(1.00390625f, 1.01171875f);  // halfway: to the even one
}

TEST(CudaBytes, WorkedExample) {
  std::vector<std::uint32_t> words(5);
  launch("bytes", {1, 1}, nullptr, bytes_kernel, words.data());
  EXPECT_EQ(words, (std::vector<std::uint32_t>{0x55441100, 0x77663322, 0x00224466, 0xc0003f80,
                                               0x3f823f80}));
}

// ---- products of a tile

template <typename Sum>
struct Lane {
  Words4 a{};
  Words2 b{};
  std::array<Sum, 4> sums{};
};

template <typename Sum, void (*multiply)(Sum (&)[4], const Words4&, const Words2&)>
__global__ void multiply_kernel(Lane<Sum>* lanes) {
  join_stream();
  Lane<Sum>& lane = lanes[threadIdx.x];
  Sum sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = lane.sums[i];
  multiply(sums, lane.a, lane.b);
  for (int i = 0; i < 4; ++i) lane.sums[i] = sums[i];
}

// The positions as the PTX ISA's figures show them: lane 5 is group 1, place 1.
TEST(CudaTile, WorkedExampleOfInt8) {
  in_every_order([] {
    std::vector<Lane<std::int32_t>> lanes(kWarpThreads);
    lanes[5].a.word[2] = 0x05000000;   // a11: row 1, input 4 * 1 + 3 + 16 = 23, is 5
    lanes[13].b.word[1] = 0xf9000000;  // b7 of lane 13: input 23, column 3, is -7
    lanes[5].sums[1] = 100;            // c1: row 1, column 2 * 1 + 1 = 3
    launch("tile", {1, kWarpThreads}, nullptr, multiply_kernel<std::int32_t, multiply_int8>,
           lanes.data());
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const std::array<std::int32_t, 4> expected = {0, lane == 5 ? 65 : 0, 0, 0};
      EXPECT_EQ(lanes[lane].sums, expected) << lane;
    }
  });
}

TEST(CudaTile, WorkedExampleOfBf16) {
  in_every_order([] {
    std::vector<Lane<float>> lanes(kWarpThreads);
    lanes[6].a.word[1] = 0x40400000;  // a3: row 1 + 8, input 2 * 2 + 1 = 5, is 3
    lanes[2].b.word[0] = 0x40000000;  // b1 of lane 2: input 5, column 0, is 2
    lanes[4].sums[2] = 0.5f;          // c2 of lane 4: row 9, column 0
    launch("tile", {1, kWarpThreads}, nullptr, multiply_kernel<float, multiply_bf16>, lanes.data());
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const std::array<float, 4> expected = {0, 0, lane == 4 ? 6.5f : 0, 0};
      EXPECT_EQ(lanes[lane].sums, expected) << lane;
    }
  });
}

// One element through bytes at its place.
template <typename T>
void put(std::vector<std::byte>& bytes, int offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

// The layouts of linear_layout.h are the instructions' fragments, lane after lane.
TEST(CudaTile, LayoutsAreTheInstructionsOwn) {
  in_every_order([] {
    for (const WeightFormat format :
         {WeightFormat::kInt8Group, WeightFormat::kBf16, WeightFormat::kFp16}) {
      const int inputs = step_layout(format).inputs;
      const bool is_int8 = format == WeightFormat::kInt8Group;
      std::mt19937 random(1);
      std::vector<std::byte> a(512), b(256);
      std::vector<int> weights(16 * inputs), rows(inputs * 8);
      const auto number = [&] { return static_cast<int>(random() % 255) - 127; };
      const auto store = [&](std::vector<std::byte>& to, int offset, int value) {
        if (is_int8) {
          put(to, offset, static_cast<std::int8_t>(value));
        } else {
          const auto real = static_cast<float>(value);
          put(to, offset, format == WeightFormat::kBf16 ? fp32_to_bf16(real) : fp32_to_fp16(real));
        }
      };
      for (int input = 0; input < inputs; ++input) {
        for (int output = 0; output < 16; ++output) {
          weights[output * inputs + input] = number();
          store(a, weight_offset(format, output, input), weights[output * inputs + input]);
        }
        for (int row = 0; row < 8; ++row) {
          rows[row * inputs + input] = number();
          store(b, row_offset(format, row, input), rows[row * inputs + input]);
        }
      }
      std::vector<Lane<std::int32_t>> integers(kWarpThreads);
      std::vector<Lane<float>> floats(kWarpThreads);
      for (int lane = 0; lane < kWarpThreads; ++lane) {
        std::memcpy(&integers[lane].a, a.data() + lane * 16, 16);
        std::memcpy(&integers[lane].b, b.data() + lane * 8, 8);
        floats[lane].a = integers[lane].a;
        floats[lane].b = integers[lane].b;
      }
      const LaunchShape warp{1, kWarpThreads};
      if (is_int8) {
        launch("tile", warp, nullptr, multiply_kernel<std::int32_t, multiply_int8>,
               integers.data());
      } else if (format == WeightFormat::kBf16) {
        launch("tile", warp, nullptr, multiply_kernel<float, multiply_bf16>, floats.data());
      } else {
        launch("tile", warp, nullptr, multiply_kernel<float, multiply_fp16>, floats.data());
      }
      for (int lane = 0; lane < kWarpThreads; ++lane) {
        for (int i = 0; i < 4; ++i) {
          const int output = lane / 4 + i / 2 * 8;
          const int row = lane % 4 * 2 + i % 2;
          int expected = 0;
          for (int k = 0; k < inputs; ++k) {
            expected += weights[output * inputs + k] * rows[row * inputs + k];
          }
          const int got = is_int8 ? integers[lane].sums[i] : static_cast<int>(floats[lane].sums[i]);
          EXPECT_EQ(got, expected) << output << ' ' << row;
        }
      }
    }
  });
}

// ---- copies

struct alignas(16) Chunk {
  int value[4];
};

/// Each thread copies one chunk and reads its neighbour's.
template <int kOpen>
__global__ void copy_kernel(const Chunk* from, int* out) {
  join_stream();
  auto* chunks = dynamic_shared<Chunk>();
  const unsigned own = threadIdx.x;
  chunks[own] = {{-1, -1, -1, -1}};
  AsyncCopies copies;
  copies.copy16(chunks + own, from + own);
  copies.commit();
  copies.commit();  // an empty group
  copies.wait<kOpen>();
  __syncthreads();
  out[own] = chunks[(own + 1) % blockDim.x].value[3];
}

TEST(CudaAsyncCopies, AreThereAfterTheWaitForTheirGroup) {
  constexpr int kThreads = 64;
  std::vector<Chunk> from(kThreads);
  for (int i = 0; i < kThreads; ++i) from[i].value[3] = i;
  const LaunchShape shape{1, kThreads, kThreads * sizeof(Chunk)};
  in_every_order([&] {
    std::vector<int> out(kThreads);
    launch("copy", shape, nullptr, copy_kernel<1>, from.data(), out.data());
    for (int i = 0; i < kThreads; ++i) EXPECT_EQ(out[i], (i + 1) % kThreads);
    // A GPU may be early; on the CPU a wait that leaves the group open always shows.
    if (kOnGpu) return;
    launch("copy", shape, nullptr, copy_kernel<2>, from.data(), out.data());
    for (int i = 0; i < kThreads; ++i) EXPECT_EQ(out[i], -1);
  });
}

}  // namespace
}  // namespace paceline::kernels::cuda
