#include "tests/support/simt/fiber.h"

#include <memory>
#include <stdexcept>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace paceline::simt {
namespace {

/// The fiber keeps its stack for the next function.
struct KeepStack {
  boost::context::stack_context stack;
  boost::context::stack_context allocate() { return stack; }
  void deallocate(boost::context::stack_context&) {}
};

}  // namespace

Fiber::Fiber(std::size_t stack_bytes) : allocator_(stack_bytes), stack_(allocator_.allocate()) {}

Fiber::~Fiber() { allocator_.deallocate(stack_); }

void Fiber::start(std::function<void()> body) {
  if (!ended_) throw std::logic_error("a fiber is started whose function has not ended");
  ended_ = false;
  body_ = std::move(body);
#if defined(__SANITIZE_ADDRESS__)
  // The last function's outermost frame was never left by a return.
  __asan_unpoison_memory_region(static_cast<char*>(stack_.sp) - stack_.size, stack_.size);
#endif
  const boost::context::preallocated whole(stack_.sp, stack_.size, stack_);
  context_ = boost::context::fiber(std::allocator_arg, whole, KeepStack{stack_},
                                   [this](boost::context::fiber&& caller) {
                                     arrived(nullptr);
                                     caller_ = std::move(caller);
                                     body_();
                                     ended_ = true;
                                     leave(nullptr);  // for good
                                     return std::move(caller_);
                                   });
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  enter(fake_stack);
  context_ = std::move(context_).resume();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
  void* fake_stack = nullptr;
  leave(&fake_stack);
  caller_ = std::move(caller_).resume();
  arrived(fake_stack);
}

#if defined(__SANITIZE_ADDRESS__)
void Fiber::enter(void*& fake_stack) const {
  __sanitizer_start_switch_fiber(&fake_stack, static_cast<char*>(stack_.sp) - stack_.size,
                                 stack_.size);
}
void Fiber::leave(void** fake_stack) const {
  __sanitizer_start_switch_fiber(fake_stack, caller_stack_, caller_stack_bytes_);
}
void Fiber::arrived(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, &caller_stack_, &caller_stack_bytes_);
}
#else
void Fiber::enter(void*&) const {}
void Fiber::leave(void**) const {}
void Fiber::arrived(void*) {}
#endif

}  // namespace paceline::simt
