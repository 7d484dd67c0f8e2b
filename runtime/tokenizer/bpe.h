#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/tokenizer/json_field.h"

namespace paceline::runtime {

/// Token ids are below this: four times the largest vocabulary known.
inline constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;

/// What merging two neighbouring tokens gives, and how early it is done (0 first).
struct BpeMerge {
  std::int32_t rank;
  std::int32_t merged;
};

/// (left id, right id) -> BpeMerge, by open addressing.
class BpeMergeTable {
 public:
  explicit BpeMergeTable(std::size_t merges = 0);
  /// A later merge of the same pair replaces the earlier.
  void insert(std::int32_t left, std::int32_t right, BpeMerge merge);
  /// Null if the pair does not merge.
  const BpeMerge* find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t pair;
    BpeMerge merge;
  };
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  std::size_t slot_of(std::uint64_t pair) const;

  std::vector<Slot> slots_;  // a power of two, at most half full
};

/// Byte pair encoding: `model` of tokenizer.json with type BPE (Sennrich et al. 2016). A piece of
/// text is cut into characters, and the neighbours whose merge has the lowest rank are merged until
/// none is left, the leftmost first. O(n log n) in the length of the piece.
class BpeModel {
 public:
  /// Throws ConfigError for what is not supported or does not fit together.
  static BpeModel parse(const JsonField& field);

  BpeModel(BpeModel&&) = default;
  BpeModel& operator=(BpeModel&&) = default;

  /// Work space of encode(), to be reused; one per thread.
  struct Scratch {
    struct Symbol {
      std::int32_t id;  // -1: merged into the one before it
      std::int32_t previous, next;
    };
    struct Candidate {
      std::int32_t rank, position, merged;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> candidates;
  };

  /// Appends the ids of one piece (valid UTF-8, normalized and pre-tokenized). A character without
  /// a token becomes its `<0xNN>` tokens with byte_fallback, else the unknown token, else nothing.
  void encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids) const;

  /// The number of tokens; ids may have gaps.
  std::size_t size() const { return ids_.size(); }
  std::int32_t largest_id() const { return static_cast<std::int32_t>(tokens_.size()) - 1; }
  std::optional<std::int32_t> find(std::string_view token) const;
  /// Null if no token has this id.
  const std::string* token(std::int32_t id) const;

 private:
  BpeModel() = default;
  void read_vocabulary(const JsonField& field);
  void read_merges(const JsonField& field);
  void add_merge(const JsonField& merges, std::size_t index, std::string_view left,
                 std::string_view right, std::int32_t rank);
  void split_into_symbols(std::string_view piece, Scratch& scratch) const;
  void merge_symbols(Scratch& scratch) const;
  std::int32_t character_id(std::string_view character, char32_t code_point) const;

  static constexpr char32_t kTabled = 0x180;  // covers the byte-level alphabet
  std::vector<std::string> tokens_;           // by id; present_ says which exist
  std::vector<bool> present_;
  std::unordered_map<std::string_view, std::int32_t> ids_;  // views into tokens_
  std::array<std::int32_t, kTabled> character_ids_{};       // by code point; -1: none
  std::array<std::int32_t, 256> byte_ids_{};                // of <0xNN>; -1: none
  BpeMergeTable merges_;
  std::optional<std::int32_t> unknown_;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace paceline::runtime
