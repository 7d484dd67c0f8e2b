#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace paceline::drafter {

/// A place in a text from which the drafter guesses what follows: the base has just produced the
/// hidden state of `row`, and from it the token that follows.
struct DraftPosition {
  std::int32_t row = 0;
  /// Depths that can be learnt or judged from here: rows row + 1 ... row + steps follow `row` in
  /// the same text. At most the depth of the training; 0: none.
  std::int32_t steps = 0;
  bool operator==(const DraftPosition&) const = default;
};

/// What the base model says of some texts. A row is a position of a text; a text's rows stand one
/// after the other. At step i of position p (1 .. p.steps) the drafter has read the token after row
/// p.row + i - 1, and is to guess the one after row p.row + i; the teacher's distribution of that
/// one comes from hidden state p.row + i.
///
/// Example: the text a b c d, whose first two tokens are the prompt, and depth 2.
///
///   row  fed   next_token    The base has read a b and says c: position {row 1, steps 2}. The
///   0    a     b             drafter reads c (after row 1) and is to guess d (after row 2), then
///   1    b     c             reads d and is to guess e. Position {row 2, steps 1} is the next.
///   2    c     d
///   3    d     e
struct TeacherRows {
  std::int64_t rows = 0;
  std::vector<float> hidden;             ///< [rows, hidden]: after the base's final norm
  std::vector<float> next_embedding;     ///< [rows, hidden]: of the token after the row
  std::vector<std::int32_t> next_token;  ///< [rows]: that token, by the model's vocabulary
  std::vector<DraftPosition> positions;
};

/// Where the trainer gets its data from. Each rank has its own source.
class TeacherData {
 public:
  virtual ~TeacherData() = default;
  /// Fills `batch` with this rank's part of minibatch `index`. The same index gives the same bits,
  /// in whatever order they are asked for (they are asked for in ascending order, after a resume
  /// from a later one on). Ranks may get parts of different sizes, some of them empty.
  virtual void minibatch(std::uint64_t index, TeacherRows& batch) = 0;
  /// Texts of this rank that are never trained on.
  virtual int held_out_texts() const = 0;
  /// Fills `text` with one of them, its positions in ascending order, one for each row from which
  /// the drafter could be asked.
  virtual void held_out(int text, TeacherRows& rows) = 0;
  /// Says what the data are (e.g. a hash of their files and options), equal on all ranks: a
  /// checkpoint is refused with others.
  virtual std::string identity() const = 0;
};

}  // namespace paceline::drafter
