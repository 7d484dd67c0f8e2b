#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/core/error.h"

// The tile instructions of AMX that the products use, and the same in plain C++: a kernel is
// written against a class of them, so that it can be tested where there is no AMX (kernels/cpu/
// linear_amx-inl.h).

namespace paceline::kernels::cpu {

/// A thread has 8 tile registers of at most 16 rows of 64 bytes.
inline constexpr int kTileRegisters = 8;
inline constexpr int kTileRows = 16;
inline constexpr int kTileRowBytes = 64;

/// What LDTILECFG reads: the shape of each register. Entries beyond the 8 registers are zero.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::array<std::uint8_t, 14> reserved{};
  std::array<std::uint16_t, 16> row_bytes{};
  std::array<std::uint8_t, 16> rows{};
};
static_assert(sizeof(TileConfig) == 64);

/// Whether this process may use AMX's int8 products: asks the processor, and the operating system
/// for its permission (ARCH_REQ_XCOMP_PERM), which then holds for all threads.
bool request_amx();

/// The instructions. Written out because the compiler's own macros neither take the register from a
/// template nor say that a load reads memory (GCC 12), so that stores could be moved behind it.
struct HardwareTiles {
  static void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
  static void release() { asm volatile("tilerelease"); }
  template <int Tile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
  }
  /// The rows stand `stride` bytes apart.
  template <int Tile>
  static void load(const void* from, std::size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
  }
  template <int Tile>
  static void store(void* to, std::size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(Tile) : "memory");
  }
  /// Sum[m][n] += the sum over k of A[m][k] * B[k][n], int32, wrapping: A int8 [M, K], B uint8
  /// [K, N] with byte 4n + i of its row j being B[4j + i][n].
  template <int Sum, int A, int B>
  static void multiply_signed_unsigned() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
  }
};

/// The same by the pseudocode of Intel's manual ("Intel 64 and IA-32 Architectures Software
/// Developer's Manual", volume 2). Where an instruction would fault it throws FatalError.
class EmulatedTiles {
 public:
  static void configure(const TileConfig& config) {
    check(config.palette == 1 && config.start_row == 0, "palette {}, start row {}", config.palette,
          config.start_row);
    for (std::size_t tile = 0; tile < config.rows.size(); ++tile) {
      const int rows = config.rows[tile];
      const int bytes = config.row_bytes[tile];
      check(rows <= kTileRows && bytes <= kTileRowBytes && (rows == 0) == (bytes == 0) &&
                (tile < kTileRegisters || rows == 0),
            "tile {} of {} rows of {} bytes", tile, rows, bytes);
    }
    registers = {};
    for (std::size_t tile = 0; tile < kTileRegisters; ++tile) {
      registers[tile].rows = config.rows[tile];
      registers[tile].row_bytes = config.row_bytes[tile];
    }
  }
  static void release() { registers = {}; }
  template <int Tile>
  static void zero() {
    configured(Tile).bytes = {};
  }
  template <int Tile>
  static void load(const void* from, std::size_t stride) {
    Register& tile = configured(Tile);
    tile.bytes = {};
    for (std::size_t row = 0; row < tile.rows; ++row) {
      std::memcpy(tile.bytes[row].data(), static_cast<const std::byte*>(from) + row * stride,
                  tile.row_bytes);
    }
  }
  template <int Tile>
  static void store(void* to, std::size_t stride) {
    const Register& tile = configured(Tile);
    for (std::size_t row = 0; row < tile.rows; ++row) {
      std::memcpy(static_cast<std::byte*>(to) + row * stride, tile.bytes[row].data(),
                  tile.row_bytes);
    }
  }
  template <int Sum, int A, int B>
  static void multiply_signed_unsigned() {
    static_assert(Sum != A && Sum != B && A != B);
    multiply(configured(Sum), configured(A), configured(B));
  }

 private:
  struct Register {
    std::size_t rows;
    std::size_t row_bytes;
    std::array<std::array<std::uint8_t, kTileRowBytes>, kTileRows> bytes;
  };

  static Register& configured(int tile) {
    Register& found = registers[static_cast<std::size_t>(tile)];
    check(found.rows > 0, "tile {} is not configured", tile);
    return found;
  }
  static void multiply(Register& sum, const Register& a, const Register& b) {
    check(sum.rows == a.rows && sum.row_bytes == b.row_bytes && a.row_bytes == 4 * b.rows &&
              sum.row_bytes % 4 == 0,
          "a sum of {} x {} bytes from {} x {} and {} x {}", sum.rows, sum.row_bytes, a.rows,
          a.row_bytes, b.rows, b.row_bytes);
    for (std::size_t m = 0; m < a.rows; ++m) {
      for (std::size_t n = 0; n < sum.row_bytes / 4; ++n) {
        std::uint32_t total;
        std::memcpy(&total, &sum.bytes[m][4 * n], 4);
        for (std::size_t k = 0; k < a.row_bytes; ++k) {
          const auto activation = static_cast<std::int8_t>(a.bytes[m][k]);
          total += static_cast<std::uint32_t>(activation * int{b.bytes[k / 4][4 * n + k % 4]});
        }
        std::memcpy(&sum.bytes[m][4 * n], &total, 4);
      }
    }
  }

  // Of this thread, as the registers are.
  static inline thread_local std::array<Register, kTileRegisters> registers{};
};

/// The registers of this thread have these shapes while it lives. Made anew for every task: the
/// thread may run other libraries' tiles in between (oneDNN's in training). They are released after
/// it so that an idle thread has no tile state for the operating system to save, nor keeps its core
/// at the clock of AMX.
template <typename Tiles>
class ConfiguredTiles {
 public:
  explicit ConfiguredTiles(const TileConfig& config) { Tiles::configure(config); }
  ~ConfiguredTiles() { Tiles::release(); }
  ConfiguredTiles(const ConfiguredTiles&) = delete;
  ConfiguredTiles& operator=(const ConfiguredTiles&) = delete;
};

}  // namespace paceline::kernels::cpu
