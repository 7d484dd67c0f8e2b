#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/core/float8.h"
#include "kernels/core/half.h"
#include "kernels/cuda/block.h"
#if !defined(__CUDACC__)
#include <vector>

#include "kernels/core/flushed_fma.h"
#endif

// What a kernel can say to nvcc only, each with what it means elsewhere: the one place where the
// sources of the two builds differ.

/// Before a loop of a constant count, so that the arrays which it walks can be registers.
#if defined(__CUDACC__)
#define PACELINE_UNROLL _Pragma("unroll")
#else
#define PACELINE_UNROLL
#endif

namespace paceline::kernels::cuda {

/// The block's shared memory of LaunchShape::shared_bytes, 16-byte aligned, not initialized.
template <typename T>
__device__ inline T* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#else
  return reinterpret_cast<T*>(simt_dynamic_shared());
#endif
}

// A kernel may begin while those before it on its stream still run: launch() asks for that where
// the GPU can (sm_90 on; programmatic dependent launch), so that what it does before it needs their
// results is done by then. Every thread of every kernel calls await_stream(), or join_stream()
// first of all; before that it reads nothing but weights, and writes nothing. Those that write
// weights are launched `after_all`, and let nothing begin early.

/// Until all that was put on the stream before has been done and can be read. Its own end so
/// implies theirs. Not to be left out by a thread that has nothing to do.
__device__ inline void await_stream() {
#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#elif !defined(__CUDACC__)
  simt_await_stream();
#endif
}

/// When all blocks have said so, what comes next on the stream may begin.
__device__ inline void let_next_begin() {
#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ inline void join_stream() {
  let_next_begin();
  await_stream();
}

/// fp16_to_fp32 of kernels/core/half.h as one instruction; exact on both sides.
__device__ inline float widen_fp16(std::uint16_t value) {
#if defined(__CUDACC__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
  return wide;
#else
  return fp16_to_fp32(value);
#endif
}

/// Two E4M3 numbers as two of fp16, the lower byte first; exact. Before sm_89, which has an
/// instruction for it, NaN becomes 480.
__device__ inline std::uint32_t widen_fp8x2(std::uint32_t pair) {
#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  std::uint32_t wide;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(wide) : "h"(static_cast<std::uint16_t>(pair)));
  return wide;
#elif defined(__CUDACC__)
  // Exponent and mantissa where fp16 has them are the number times 2^-8: 0x5c00 is 256.
  const std::uint32_t apart = (pair & 0xffu) | (pair & 0xff00u) << 8;
  const std::uint32_t small = (apart & 0x00800080u) << 8 | (apart & 0x007f007fu) << 7;
  std::uint32_t wide;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(wide) : "r"(small), "r"(0x5c005c00u));
  return wide;
#else
  const auto half = [](std::uint32_t code) {
    return std::uint32_t{fp32_to_fp16(fp8_to_fp32(static_cast<std::uint8_t>(code & 0xff)))};
  };
  return half(pair) | half(pair >> 8) << 16;
#endif
}

/// fp32_to_bf16 of kernels/core/half.h for two numbers, `low` in the lower half.
__device__ inline std::uint32_t round_bf16x2(float low, float high) {
#if defined(__CUDACC__)
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return std::uint32_t{fp32_to_bf16(low)} | std::uint32_t{fp32_to_bf16(high)} << 16;
#endif
}

/// Four bytes of a (0 ... 3) and b (4 ... 7), the number of each in a digit of `which`, the lowest
/// first.
__device__ inline std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t which) {
#if defined(__CUDACC__)
  std::uint32_t picked;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(picked) : "r"(a), "r"(b), "r"(which));
  return picked;
#else
  const std::uint64_t both = std::uint64_t{b} << 32 | a;
  std::uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) {
    picked |= static_cast<std::uint32_t>(both >> (which >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  }
  return picked;
#endif
}

/// The int8 numbers in the lower bytes of the two halves as bf16, exactly; the upper bytes do not
/// matter.
__device__ inline std::uint32_t widen_int8x2(std::uint32_t halves) {
#if defined(__CUDACC__)
  // 128 plus the lower seven bits, less 128 or, of a negative number, 256: 0x4300 is 128 in bf16,
  // and its last bit but seven doubles it.
  const std::uint32_t more = (halves & 0x007f007fu) | 0x43004300u;
  const std::uint32_t less = (halves & 0x00800080u) | 0xc300c300u;
  std::uint32_t wide;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(wide) : "r"(more), "r"(0x3f803f80u), "r"(less));
  return wide;
#else
  const auto bf16 = [](std::uint32_t bits) {
    return std::uint32_t{fp32_to_bf16(static_cast<float>(static_cast<std::int8_t>(bits & 0xff)))};
  };
  return bf16(halves) | bf16(halves >> 16) << 16;
#endif
}

/// A thread's copies from device memory to shared memory, which go on while it computes (cp.async).
/// What it copied is there for itself after `wait`, for the others after a barrier behind that.
/// Elsewhere they are made in `wait`, no sooner, so that a reader who is too early finds the old.
class AsyncCopies {
 public:
  /// 16 bytes, both ends aligned to as many.
  __device__ void copy16(void* shared, const void* global) {
#if defined(__CUDACC__)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     static_cast<unsigned>(__cvta_generic_to_shared(shared))),
                 "l"(global)
                 : "memory");
#else
    open_.push_back({shared, global, groups_});
#endif
  }

  /// The copies since the last commit (or none) become a group.
  __device__ void commit() {
#if defined(__CUDACC__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    ++groups_;
#endif
  }

  /// Until all groups but the last kOpen are there.
  template <int kOpen>
  __device__ void wait() {
#if defined(__CUDACC__)
    asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
#else
    std::erase_if(open_, [&](const Copy& copy) {
      if (copy.group >= groups_ - kOpen) return false;
      std::memcpy(copy.to, copy.from, 16);
      return true;
    });
#endif
  }

#if !defined(__CUDACC__)
 private:
  struct Copy {
    void* to;
    const void* from;
    int group;
  };
  std::vector<Copy> open_;
  int groups_ = 0;
#endif
};

// ---- the tensor core's products of a tile: sums[16, 8] += a[16, inputs] * b[inputs, 8]
//
// The warp's 32 lanes hold the three matrices together, in fragments; all must call. With
// group = lane / 4, t = lane % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16" and "... m16n8k32"):
//
// a, 16 bit  element i of 8:  row group + 8 * (i / 2 % 2), input 2t + i % 2 + 8 * (i / 4)
// b, 16 bit  element i of 4:  input 2t + i % 2 + 8 * (i / 2), column group
// a, int8    element i of 16: row group + 8 * (i / 4 % 2), input 4t + i % 4 + 16 * (i / 8)
// b, int8    element i of 8:  input 4t + i % 4 + 16 * (i / 4), column group
// sums       element i of 4:  row group + 8 * (i / 2), column 2t + i % 2

/// A lane's registers; elements from the lowest bits up.
struct alignas(16) Words4 {
  std::uint32_t word[4];
};
struct alignas(8) Words2 {
  std::uint32_t word[2];
};

#if !defined(__CUDACC__)
/// Both operands of a warp's product, decoded.
template <typename T, int kInputs>
struct TileOperands {
  T a[16][kInputs];
  T b[kInputs][8];
};

/// kElements of `a`, half as many of `b` per lane, each of `kBits` bits: decode(bits). Then
/// sums[i] = add(a, b, sums[i]) over the inputs, ascending.
template <typename T, int kBits, typename Decode, typename Sum, typename Add>
void multiply_tile(Sum (&sums)[4], const Words4& a, const Words2& b, const Decode& decode,
                   const Add& add) {
  constexpr int kPerWord = 32 / kBits;
  constexpr int kInputs = 8 * kPerWord;
  __shared__ TileOperands<T, kInputs> of_warp[kMostWarps];
  TileOperands<T, kInputs>& all = of_warp[warp_of_block()];
  const int group = lane_of_warp() / 4;
  const int t = lane_of_warp() % 4;
  const auto element = [&](const std::uint32_t* words, int i) {
    return decode(words[i / kPerWord] >> (i % kPerWord * kBits));
  };
  for (int i = 0; i < 4 * kPerWord; ++i) {
    const int input = t * kPerWord + i % kPerWord + kInputs / 2 * (i / (2 * kPerWord));
    all.a[group + 8 * (i / kPerWord % 2)][input] = element(a.word, i);
  }
  for (int i = 0; i < 2 * kPerWord; ++i) {
    const int input = t * kPerWord + i % kPerWord + kInputs / 2 * (i / kPerWord);
    all.b[input][group] = element(b.word, i);
  }
  __syncwarp();
  for (int i = 0; i < 4; ++i) {
    for (int input = 0; input < kInputs; ++input) {
      sums[i] = add(all.a[group + 8 * (i / 2)][input], all.b[input][2 * t + i % 2], sums[i]);
    }
  }
  __syncwarp();  // before the next one's operands come
}
#endif

/// 32 inputs of int8, exact.
__device__ inline void multiply_int8(std::int32_t (&sums)[4], const Words4& a, const Words2& b) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
        "r"(b.word[1]));
#else
  multiply_tile<std::int32_t, 8>(
      sums, a, b, [](std::uint32_t bits) { return static_cast<std::int8_t>(bits & 0xff); },
      [](std::int32_t x, std::int32_t y, std::int32_t sum) { return sum + x * y; });
#endif
}

/// 16 inputs of bf16 or fp16, products exact. A GPU adds the 16 and the sum before in an order and
/// with a rounding that its makers do not tell; elsewhere it is one FMA chain, inputs ascending, of
/// bf16 the CPU's.
__device__ inline void multiply_bf16(float (&sums)[4], const Words4& a, const Words2& b) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
        "r"(b.word[1]));
#else
  multiply_tile<float, 16>(
      sums, a, b,
      [](std::uint32_t bits) { return bf16_to_fp32(static_cast<std::uint16_t>(bits & 0xffff)); },
      flushed_fma);
#endif
}
__device__ inline void multiply_fp16(float (&sums)[4], const Words4& a, const Words2& b) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
        "r"(b.word[1]));
#else
  multiply_tile<float, 16>(
      sums, a, b,
      [](std::uint32_t bits) { return fp16_to_fp32(static_cast<std::uint16_t>(bits & 0xffff)); },
      [](float x, float y, float sum) { return std::fma(x, y, sum); });
#endif
}

}  // namespace paceline::kernels::cuda
