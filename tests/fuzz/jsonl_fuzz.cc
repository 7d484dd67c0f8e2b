// An input file of requests: it is refused as a whole over repeated ids, or each line becomes a
// request or an error, and either can be written as a line of output.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "kernels/core/error.h"
#include "runtime/files/file_descriptor.h"
#include "runtime/requests/jsonl_input.h"
#include "runtime/requests/result_line.h"

using paceline::check;
using paceline::ConfigError;
using paceline::RequestError;
using namespace paceline::runtime;  // NOLINT: a test of that namespace

namespace {

std::string output_line(const JsonlInput& input, std::size_t index) {
  try {
    const Request request = input.read(index);
    check(request.id == input.id(index), "the id of line {} changes", input.line(index));
    check_sampling(request.sampling);
    return result_line(request, Answer{.text = request.id, .token_ids = {1}, .steps = 1}, {}, 0);
  } catch (const RequestError& error) {
    return error_line(input.id(index), input.line(index), error);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const FileDescriptor memory(::memfd_create("fuzz", MFD_CLOEXEC));
  check(::write(memory.get(), data, size) == static_cast<ssize_t>(size), "no memory file");
  try {
    const JsonlInput input =
        JsonlInput::open("/proc/self/fd/" + std::to_string(memory.get()), {.vocab_size = 1000});
    for (std::size_t i = 0; i < input.size(); ++i) {
      const std::string line = output_line(input, i);
      check(line.find('\n') == std::string::npos, "a line end inside a line");
      check(parse_json(line, "output").at("custom_id") == input.id(i), "another id");
    }
  } catch (const ConfigError&) {
  }
  return 0;
}
