#include "kernels/cpu/amx_tiles.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace paceline::kernels::cpu {

namespace {

bool processor_has_amx_int8() {
  constexpr unsigned kTileAndInt8 = 1u << 24 | 1u << 25;  // CPUID 7.0, EDX
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kTileAndInt8) == kTileAndInt8;
}

bool system_keeps_tiles() {
  constexpr unsigned kXgetbvAllowed = 1u << 27;                     // CPUID 1, ECX
  constexpr unsigned kConfigurationAndTiles = 1u << 17 | 1u << 18;  // XCR0
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXgetbvAllowed) == 0) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kConfigurationAndTiles) == kConfigurationAndTiles;
}

// Linux gives a process the 8 KB of tile state only once it has asked for it; a kernel before 5.16
// does not know the question.
bool system_permits_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTiles = 18;                  // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTiles) == 0;
}

}  // namespace

bool request_amx() {
  return processor_has_amx_int8() && system_keeps_tiles() && system_permits_tiles();
}

}  // namespace paceline::kernels::cpu
