#pragma once

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstddef>
#include <functional>

namespace paceline::simt {

/// A function on a stack of its own (with a guard page below it), which can be left in the middle
/// and entered again. AddressSanitizer is told of every change of stack.
class Fiber {
 public:
  explicit Fiber(std::size_t stack_bytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// What the next resume() begins with; it must not throw. The function before must have ended.
  void start(std::function<void()> body);
  /// Runs the function until it calls suspend() or ends.
  void resume();
  /// Goes back to whoever called resume(). From inside the function only.
  void suspend();
  bool ended() const { return ended_; }

 private:
  // Tell AddressSanitizer that execution goes to this fiber's stack and back.
  void enter(void*& fake_stack) const;
  void leave(void** fake_stack) const;
  void arrived(void* fake_stack);

  boost::context::protected_fixedsize_stack allocator_;
  boost::context::stack_context stack_;
  boost::context::fiber context_;  // where this one goes on, while it is left
  boost::context::fiber caller_;   // where resume() goes on, while this one runs
  std::function<void()> body_;
  bool ended_ = true;
  const void* caller_stack_ = nullptr;
  std::size_t caller_stack_bytes_ = 0;
};

}  // namespace paceline::simt
