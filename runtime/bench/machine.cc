#include "runtime/bench/machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <string_view>

namespace paceline::runtime {
namespace {

template <typename T>
std::optional<T> read_value(const std::filesystem::path& path) {
  std::ifstream file(path);
  T value;
  if (file >> value) return value;
  return std::nullopt;
}

}  // namespace

std::string cpu_name(const std::filesystem::path& cpuinfo) {
  constexpr std::string_view kKey = "model name";
  std::ifstream file(cpuinfo);
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with(kKey) && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::uint64_t total_memory(const std::filesystem::path& meminfo) {
  std::ifstream file(meminfo);
  std::string key;
  std::uint64_t kilobytes = 0;
  return file >> key >> kilobytes && key == "MemTotal:" ? kilobytes << 10 : 0;
}

std::uint64_t resident_memory() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  file >> size >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

std::uint64_t peak_resident_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) << 10;  // from KiB
}

EnergyCounter::EnergyCounter(const std::filesystem::path& powercap) {
  std::error_code ignored;
  for (const auto& zone : std::filesystem::directory_iterator(powercap, ignored)) {
    // intel-rapl:0 is a package; intel-rapl:0:1 a part of it, which it counts. A second interface,
    // intel-rapl-mmio:0, says the same.
    if (!zone.path().filename().string().starts_with("intel-rapl:")) continue;
    const auto name = read_value<std::string>(zone.path() / "name");
    if (!name || !name->starts_with("package")) continue;
    const auto energy = read_value<std::uint64_t>(zone.path() / "energy_uj");
    const auto range = read_value<std::uint64_t>(zone.path() / "max_energy_range_uj");
    if (!energy || !range) continue;
    packages_.push_back({zone.path() / "energy_uj", *range, *energy});
  }
}

std::optional<double> EnergyCounter::lap() {
  if (!readable()) return std::nullopt;
  double joules = 0;
  for (Package& package : packages_) {
    const auto now = read_value<std::uint64_t>(package.energy);
    if (!now) return std::nullopt;
    const std::uint64_t used =
        *now >= package.last ? *now - package.last : *now + package.range - package.last;
    joules += static_cast<double>(used) * 1e-6;
    package.last = *now;
  }
  return joules;
}

}  // namespace paceline::runtime
