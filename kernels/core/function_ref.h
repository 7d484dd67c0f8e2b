#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace paceline::kernels {

template <typename Signature>
class FunctionRef;

/// A callable that someone else owns and keeps alive: two words, no allocation.
template <typename Result, typename... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <typename Function>
  requires(!std::is_same_v<std::remove_cvref_t<Function>, FunctionRef> &&
           std::is_invocable_r_v<Result, Function&, Args...>)
      FunctionRef(Function&& function)  // NOLINT(google-explicit-constructor): a parameter type
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(function)))),
        call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<Function>*>(object))(
              std::forward<Args>(args)...);
        }) {}

  Result operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  Result (*call_)(void*, Args...);
};

}  // namespace paceline::kernels
