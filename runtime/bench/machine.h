#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace paceline::runtime {

/// "AMD EPYC 9575F"; "unknown" where the system does not say.
std::string cpu_name(const std::filesystem::path& cpuinfo = "/proc/cpuinfo");
/// Bytes of the machine's memory.
std::uint64_t total_memory(const std::filesystem::path& meminfo = "/proc/meminfo");
/// Bytes that this process holds in memory now.
std::uint64_t resident_memory();
/// The most that it has held.
std::uint64_t peak_resident_memory();

/// The energy that a machine's processors have used (Intel's RAPL, which AMD has too), where the
/// system lets us read it.
class EnergyCounter {
 public:
  explicit EnergyCounter(const std::filesystem::path& powercap = "/sys/class/powercap");
  bool readable() const { return !packages_.empty(); }
  /// Joules since the last call, or since this was made; nothing if they cannot be read. Call it
  /// more often than a counter wraps (minutes under load).
  std::optional<double> lap();

 private:
  struct Package {
    std::filesystem::path energy;  // microjoules
    std::uint64_t range = 0;       // where they begin again from 0
    std::uint64_t last = 0;
  };
  std::vector<Package> packages_;
};

}  // namespace paceline::runtime
