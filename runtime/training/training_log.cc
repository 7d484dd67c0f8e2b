#include "runtime/training/training_log.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/files/atomic_file.h"

namespace paceline::runtime {
namespace {

LoggedEvaluation evaluation_of(const Json& line) {
  const Json& json = line.at("evaluation");
  LoggedEvaluation evaluation;
  evaluation.step = line.at("step").get<std::uint64_t>();
  evaluation.positions = line.at("positions").get<double>();
  evaluation.result.loss = json.at("loss").get<double>();
  evaluation.result.acceptance = json.at("acceptance").get<std::vector<double>>();
  for (std::size_t k = 0; k < drafter::kTriedTokens.size(); ++k) {
    evaluation.result.tokens_per_step[k] =
        json.at("tokens_per_step").at(std::to_string(drafter::kTriedTokens[k])).get<double>();
  }
  if (json.contains("shapes")) {
    for (const auto& shape : json.at("shapes").items()) {
      evaluation.shapes.emplace_back(shape.key(), shape.value().get<double>());
    }
    // By width, as they were written, not by spelling.
    std::ranges::stable_sort(evaluation.shapes, {},
                             [](const auto& shape) { return shape.first.size(); });
  }
  return evaluation;
}

}  // namespace

TrainingLog::TrainingLog(const std::filesystem::path& path, std::uint64_t resumed) : path_(path) {
  const std::string kept = kept_lines(path, resumed);
  {
    AtomicFile file(path);
    file.write(std::as_bytes(std::span(kept)));
    file.commit();
  }
  file_.open(path, std::ios::app);
  if (!file_) throw ConfigError("{}: cannot be opened for writing", path.string());
}

// What a killed run wrote behind its last checkpoint is done again.
std::string TrainingLog::kept_lines(const std::filesystem::path& path, std::uint64_t resumed) {
  std::string kept;
  if (resumed == 0 || !std::filesystem::exists(path)) return kept;
  const std::string text = read_file(path, std::size_t{1} << 30);
  std::string_view rest = text;
  for (std::int64_t number = 1;; ++number) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) return kept;  // torn, or the end
    const std::string place = fmt::format("{} line {}", path.string(), number);
    const Json line = parse_json(rest.substr(0, end), place);
    try {
      if (line.at("step").get<std::uint64_t>() <= resumed) {
        keep(line, place);
        kept += rest.substr(0, end + 1);
      }
    } catch (const Json::exception& error) {
      throw ConfigError("{}: is not a line of a training's log: {}", place, error.what());
    }
    rest.remove_prefix(end + 1);
  }
}

void TrainingLog::keep(const Json& line, const std::string& place) {
  if (line.contains("evaluation")) {
    evaluations_.push_back(evaluation_of(line));
    return;
  }
  positions_ = line.at("positions").get<double>();
  seconds_before_ = line.at("seconds").get<double>();
  last_.step = line.at("step").get<std::uint64_t>();
  last_.loss = line.at("loss").get<double>();
  if (positions_ < 0) throw ConfigError("{}: positions is {}", place, positions_);
}

void TrainingLog::count(const drafter::StepReport& report) {
  last_ = report;
  written_ = false;
  positions_ += report.positions;
}

void TrainingLog::write_step(double seconds) {
  if (std::exchange(written_, true)) return;
  write_line({{"step", last_.step},
              {"positions", positions_},
              {"loss", last_.loss},
              {"learning_rate", last_.learning_rate},
              {"gradient_norm", last_.gradient_norm},
              {"seconds", seconds_before_ + seconds}});
}

void TrainingLog::write(LoggedEvaluation evaluation) {
  OrderedJson json = {{"loss", evaluation.result.loss},
                      {"acceptance", evaluation.result.acceptance}};
  for (std::size_t k = 0; k < drafter::kTriedTokens.size(); ++k) {
    json["tokens_per_step"][std::to_string(drafter::kTriedTokens[k])] =
        evaluation.result.tokens_per_step[k];
  }
  for (const auto& [shape, tokens] : evaluation.shapes) json["shapes"][shape] = tokens;
  write_line(
      {{"step", evaluation.step}, {"positions", evaluation.positions}, {"evaluation", json}});
  evaluations_.push_back(std::move(evaluation));
}

void TrainingLog::write_line(const OrderedJson& line) {
  file_ << line.dump() << "\n" << std::flush;
  check(file_.good(), "{}: cannot be written", path_.string());
}

}  // namespace paceline::runtime
