#include <vector>

#include "kernels/api.h"

namespace paceline::kernels {
namespace {

/// Where ops are done when they return, so are copies.
class ReadbackAtOnce final : public Readback {
 public:
  explicit ReadbackAtOnce(Backend& backend) : backend_(backend) {}

  void start(std::span<const Part> parts) override {
    std::size_t bytes = 0;
    for (const Part& part : parts) bytes += part.bytes;
    bytes_.resize(bytes);
    std::byte* to = bytes_.data();
    for (const Part& part : parts) {
      backend_.download(to, part.device, part.bytes);
      to += part.bytes;
    }
  }
  const std::byte* wait() override { return bytes_.data(); }

 private:
  Backend& backend_;
  std::vector<std::byte> bytes_;
};

}  // namespace

std::unique_ptr<Readback> Backend::make_readback() {
  return std::make_unique<ReadbackAtOnce>(*this);
}

}  // namespace paceline::kernels
