# cmake -D SOURCE=<repository> -D HEADER=<file> -P write_commit.cmake: writes the commit that is being
# built into a header; touches it only if that has changed. "unknown" outside git.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR NOT EXISTS ${SOURCE}/.git)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT [[
#pragma once

namespace paceline::launcher {

inline constexpr char kCommit[] = "@commit@";

}  // namespace paceline::launcher
]] @ONLY)
