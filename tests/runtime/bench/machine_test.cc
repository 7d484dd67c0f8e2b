#include "runtime/bench/machine.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/api.h"
#include "runtime/bench/bandwidth.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

TEST(Machine, IsReadFromWhatTheSystemSays) {
  const TemporaryDirectory directory;
  EXPECT_EQ(cpu_name(directory.write("cpuinfo",
                                     "processor\t: 0\nvendor_id\t: GenuineIntel\n"
                                     "model name\t: Intel(R) Xeon(R) @ 2.10GHz\n")),
            "Intel(R) Xeon(R) @ 2.10GHz");
  EXPECT_EQ(cpu_name(directory.write("other", "CPU part\t: 0xd40\n")), "unknown");
  EXPECT_EQ(cpu_name(directory.path() / "missing"), "unknown");
  EXPECT_EQ(
      total_memory(directory.write("meminfo", "MemTotal:       16316412 kB\nMemFree: 1 kB\n")),
      16316412ull * 1024);
  EXPECT_EQ(total_memory(directory.path() / "missing"), 0u);
}

TEST(Machine, MemoryThatIsTouchedIsResident) {
  const std::uint64_t before = resident_memory();
  EXPECT_GT(before, 0u);
  const std::vector<char> touched(64 << 20, 1);
  EXPECT_GT(resident_memory(), before + (32 << 20)) << touched.size();
  EXPECT_GE(peak_resident_memory(), before + (32 << 20));
}

// Two packages, one of which wraps at 1000 microjoules, and what must not be counted beside them.
TEST(EnergyCounter, AddsThePackagesAndCountsOnWhenOneWraps) {
  const TemporaryDirectory directory;
  const auto zone = [&](const std::string& folder, const char* name, const char* energy,
                        const char* range) {
    directory.write(folder + "/name", name);
    directory.write(folder + "/energy_uj", energy);
    directory.write(folder + "/max_energy_range_uj", range);
  };
  zone("intel-rapl:0", "package-0\n", "900\n", "1000\n");
  zone("intel-rapl:0:0", "core\n", "5\n", "1000\n");
  zone("intel-rapl:1", "package-1\n", "40\n", "100000\n");
  zone("intel-rapl:2", "psys\n", "7\n", "100000\n");
  zone("intel-rapl-mmio:0", "package-0\n", "900\n", "1000\n");
  EnergyCounter counter(directory.path());
  ASSERT_TRUE(counter.readable());
  directory.write("intel-rapl:0/energy_uj", "300\n");
  directory.write("intel-rapl:1/energy_uj", "2040\n");
  directory.write("intel-rapl:0:0/energy_uj", "900\n");
  EXPECT_DOUBLE_EQ(counter.lap().value(), 400e-6 + 2000e-6);
  EXPECT_DOUBLE_EQ(counter.lap().value(), 0);
  std::filesystem::remove(directory.path() / "intel-rapl:1" / "energy_uj");
  EXPECT_FALSE(counter.lap());
}

TEST(EnergyCounter, SaysNothingWhereThereIsNone) {
  const TemporaryDirectory directory;
  EnergyCounter counter(directory.path() / "missing");
  EXPECT_FALSE(counter.readable());
  EXPECT_FALSE(counter.lap());
}

TEST(ReadBandwidth, IsSomething) {
  const auto backend = kernels::make_cpu_backend({.threads = 2});
  EXPECT_GT(read_bandwidth(*backend, 1 << 20), 0);
  EXPECT_GE(bandwidth_bytes(4), std::size_t{128} << 20);
}

}  // namespace
}  // namespace paceline::runtime
