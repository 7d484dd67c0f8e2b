#pragma once

#include <string>

namespace paceline::launcher {

/// That a report can be written is found before the work, not after it. An empty path is none.
/// Throws ConfigError naming the option.
void check_writable(const char* option, const std::string& path);

/// Throws ConfigError naming the option. An empty path is none.
void write_file(const char* option, const std::string& path, const std::string& text);

}  // namespace paceline::launcher
