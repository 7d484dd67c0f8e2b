#include "runtime/files/json.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

/// What the parser says, without the text that it had read so far: that can be the whole input.
std::string reason_of(const Json::exception& error) {
  constexpr std::size_t kMaxReason = 200;
  std::string reason = error.what();
  if (reason.size() > kMaxReason) reason = reason.substr(0, kMaxReason) + "...";
  return reason;
}

/// Builds the document while it is parsed, so that limits hold before memory is spent. (The
/// library's own callback parser would do, but it looks through a container's earlier elements
/// after each object that ends inside it: quadratic for a long list of objects.)
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view source, int max_depth) : source_(source), max_depth_(max_depth) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& value) override { return add(std::move(value)); }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto& object = open_.back()->get_ref<Json::object_t&>();
    const auto [place, is_new] = object.emplace(std::move(name), nullptr);
    // Duplicate keys are refused because readers disagree on which one counts.
    if (!is_new) {
      throw ConfigError("{}: the key \"{}\" occurs twice in one object", source_,
                        place->first.substr(0, 100));
    }
    member_ = &place->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    throw ConfigError("{}: not valid JSON at byte {}: {}", source_, position, reason_of(error));
  }

 private:
  /// Puts a value where the parser stands. The pointers in open_ stay valid: a list grows only
  /// while none of its elements is open.
  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  Json* place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  bool open(Json container) {
    if (open_.size() >= static_cast<std::size_t>(max_depth_)) {
      throw ConfigError("{}: JSON nested deeper than {} levels", source_, max_depth_);
    }
    open_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view source_;
  int max_depth_;
  Json root_;
  std::vector<Json*> open_;
  Json* member_ = nullptr;  ///< of the innermost open object, named by the last key
};

}  // namespace

Json parse_json(std::string_view text, std::string_view source, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw ConfigError("{}: {} bytes of JSON, at most {} are accepted", source, text.size(),
                      limits.max_bytes);
  }
  Builder builder(source, limits.max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code failure;
  // Asked first: opening a named pipe would wait for a writer, reading a device might never end.
  if (!std::filesystem::is_regular_file(path, failure)) {
    throw ConfigError(
        "{}: {}", path.string(),
        std::filesystem::exists(path, failure) ? "is not a regular file" : "is not there");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw ConfigError("{}: cannot be opened for reading", path.string());
  const auto size = std::filesystem::file_size(path, failure);
  if (failure) throw ConfigError("{}: its size cannot be read", path.string());
  if (size > max_bytes) {
    throw ConfigError("{}: {} bytes, at most {} are accepted", path.string(), size, max_bytes);
  }
  std::string text(size, '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (static_cast<std::size_t>(file.gcount()) != size) {
    throw ConfigError("{}: could not be read to its end", path.string());
  }
  return text;
}

Json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path.string(), limits);
}

}  // namespace paceline::runtime
