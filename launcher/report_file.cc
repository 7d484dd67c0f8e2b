#include "launcher/report_file.h"

#include <fstream>

#include "kernels/core/error.h"

namespace paceline::launcher {

void check_writable(const char* option, const std::string& path) {
  if (!path.empty() && !std::ofstream(path, std::ios::app)) {
    throw ConfigError("{} {}: cannot be opened for writing", option, path);
  }
}

void write_file(const char* option, const std::string& path, const std::string& text) {
  if (path.empty()) return;
  std::ofstream file(path);
  file << text;
  if (!file.flush()) throw ConfigError("{} {}: cannot be written", option, path);
}

}  // namespace paceline::launcher
