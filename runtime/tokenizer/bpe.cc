#include "runtime/tokenizer/bpe.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {
namespace {

/// The finalizer of SplitMix64: spreads neighbouring pairs over the table.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

BpeMergeTable::BpeMergeTable(std::size_t merges)
    : slots_(std::bit_ceil(2 * merges + 2), Slot{kFree, {}}) {}

std::size_t BpeMergeTable::slot_of(std::uint64_t pair) const {
  std::size_t slot = mix(pair) & (slots_.size() - 1);
  while (slots_[slot].pair != kFree && slots_[slot].pair != pair) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

void BpeMergeTable::insert(std::int32_t left, std::int32_t right, BpeMerge merge) {
  const std::uint64_t pair = pair_of(left, right);
  slots_[slot_of(pair)] = {pair, merge};
}

const BpeMerge* BpeMergeTable::find(std::int32_t left, std::int32_t right) const {
  const Slot& slot = slots_[slot_of(pair_of(left, right))];
  return slot.pair == kFree ? nullptr : &slot.merge;
}

BpeModel BpeModel::parse(const JsonField& field) {
  field.allow_only({"type", "dropout", "unk_token", "continuing_subword_prefix",
                    "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                    "merges"});
  // Files written before the key existed have a BPE without it.
  if (const auto type = field.find("type"); type && type->string() != "BPE") type->refuse("BPE");
  if (const auto dropout = field.find("dropout"); dropout && dropout->value() != 0) {
    dropout->refuse("null: the same text must always give the same tokens");
  }
  for (const auto key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto affix = field.find(key); affix && !affix->string().empty())
      affix->refuse("\"\"");
  }
  BpeModel model;
  model.fuse_unknown_ = field.boolean_or("fuse_unk", false);
  model.byte_fallback_ = field.boolean_or("byte_fallback", false);
  model.ignore_merges_ = field.boolean_or("ignore_merges", false);
  model.read_vocabulary(field.at("vocab"));
  model.read_merges(field.at("merges"));
  if (const auto unknown = field.find("unk_token")) {
    model.unknown_ = model.find(unknown->string());
    if (!model.unknown_) unknown->refuse("a token of the vocabulary");
  }
  return model;
}

void BpeModel::read_vocabulary(const JsonField& field) {
  if (!field.value().is_object()) field.refuse("an object");
  for (const auto& [token, id] : field.value().items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMostTokens) {
      field.at(token).refuse(fmt::format("an integer from 0 to {}", kMostTokens - 1));
    }
    const auto index = id.get<std::size_t>();
    if (index >= tokens_.size()) {
      tokens_.resize(index + 1);
      present_.resize(index + 1);
    }
    if (present_[index]) field.at(token).refuse("an id that no other token has");
    tokens_[index] = token;
    present_[index] = true;
  }
  ids_.reserve(field.value().size());
  for (std::size_t id = 0; id < tokens_.size(); ++id) {
    if (present_[id]) ids_.emplace(tokens_[id], static_cast<std::int32_t>(id));
  }
  for (char32_t c = 0; c < kTabled; ++c) {
    std::string character;
    append_utf8(character, c);
    character_ids_[c] = find(character).value_or(-1);
  }
  for (unsigned byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] = find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
}

void BpeModel::read_merges(const JsonField& field) {
  const Json& list = field.value();
  if (!list.is_array()) field.refuse("a list");
  merges_ = BpeMergeTable(list.size());
  std::int32_t rank = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& merge = list[i];
    if (merge.is_string()) {
      const std::string_view line = merge.get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;
      const std::size_t space = line.find(' ');
      if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
        field.items()[i].refuse("two tokens and one space between them");
      }
      add_merge(field, i, line.substr(0, space), line.substr(space + 1), rank);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      add_merge(field, i, merge[0].get_ref<const std::string&>(),
                merge[1].get_ref<const std::string&>(), rank);
    } else {
      field.items()[i].refuse("\"a b\" or [\"a\", \"b\"]");
    }
    ++rank;
  }
}

void BpeModel::add_merge(const JsonField& merges, std::size_t index, std::string_view left,
                         std::string_view right, std::int32_t rank) {
  std::string whole(left);
  whole += right;
  const auto left_id = find(left), right_id = find(right), whole_id = find(whole);
  if (!left_id || !right_id || !whole_id) {
    throw ConfigError("{}[{}]: \"{}\" is not a token of the vocabulary", merges.where(), index,
                      !left_id    ? left
                      : !right_id ? right
                                  : std::string_view(whole));
  }
  merges_.insert(*left_id, *right_id, {rank, *whole_id});
}

std::optional<std::int32_t> BpeModel::find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const std::string* BpeModel::token(std::int32_t id) const {
  const auto index = static_cast<std::size_t>(id);
  return id >= 0 && index < tokens_.size() && present_[index] ? &tokens_[index] : nullptr;
}

std::int32_t BpeModel::character_id(std::string_view character, char32_t code_point) const {
  if (code_point < kTabled) return character_ids_[code_point];
  return find(character).value_or(-1);
}

void BpeModel::encode(std::string_view piece, Scratch& scratch,
                      std::vector<std::int32_t>& ids) const {
  if (piece.empty()) return;
  check(piece.size() < INT32_MAX, "a piece of {} bytes", piece.size());
  if (ignore_merges_) {
    if (const auto id = find(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  split_into_symbols(piece, scratch);
  merge_symbols(scratch);
  for (const Scratch::Symbol& symbol : scratch.symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

void BpeModel::split_into_symbols(std::string_view piece, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  const auto add = [&](std::int32_t id) {
    const auto here = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, here - 1, here + 1});
  };
  // An unknown token waits so that those after it can be fused with it. As in `tokenizers`, bytes
  // do not end the wait: the unknown token then stands behind them.
  bool unknown_waits = false;
  while (!piece.empty()) {
    const Utf8Step step = decode_utf8(piece);
    const std::string_view character = piece.substr(0, step.length);
    piece.remove_prefix(step.length);
    if (const std::int32_t id = character_id(character, step.code_point); id >= 0) {
      if (unknown_waits) add(*unknown_);
      unknown_waits = false;
      add(id);
      continue;
    }
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
    if (byte_fallback_ &&
        std::all_of(character.begin(), character.end(), [&](char c) { return byte_id(c) >= 0; })) {
      for (const char c : character) add(byte_id(c));
    } else if (unknown_) {
      if (unknown_waits && !fuse_unknown_) add(*unknown_);
      unknown_waits = true;
    }
  }
  if (unknown_waits) add(*unknown_);
  if (!symbols.empty()) symbols.back().next = -1;
}

void BpeModel::merge_symbols(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.candidates;
  heap.clear();
  using Candidate = Scratch::Candidate;
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
    if (const BpeMerge* merge = merges_.find(symbols[i].id, symbols[i + 1].id)) {
      heap.push_back({merge->rank, static_cast<std::int32_t>(i), merge->merged});
    }
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto offer = [&](std::int32_t position) {
    const auto& left = symbols[static_cast<std::size_t>(position)];
    const auto& right = symbols[static_cast<std::size_t>(left.next)];
    if (const BpeMerge* merge = merges_.find(left.id, right.id)) {
      heap.push_back({merge->rank, position, merge->merged});
      std::push_heap(heap.begin(), heap.end(), later);
    }
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    auto& left = symbols[static_cast<std::size_t>(best.position)];
    if (left.id < 0 || left.next < 0) continue;
    auto& right = symbols[static_cast<std::size_t>(left.next)];
    // Other merges may have changed the pair since. `tokenizers` compares what it would become.
    const BpeMerge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->merged != best.merged) continue;
    left.id = best.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.position;
    if (left.previous >= 0) offer(left.previous);
    if (left.next >= 0) offer(best.position);
  }
}

}  // namespace paceline::runtime
