#include "parallel/signals.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/error.h"

namespace paceline::parallel {

Signals::Signals() {
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGTERM);
  sigaddset(&ours, SIGINT);
  descriptor_ = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
  check(descriptor_ >= 0, "signalfd: {}", std::strerror(errno));
  pthread_sigmask(SIG_BLOCK, &ours, &before_);
}

Signals::~Signals() {
  close(descriptor_);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void Signals::read_pending() {
  signalfd_siginfo info;
  while (read(descriptor_, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    last_.store(static_cast<int>(info.ssi_signo), std::memory_order_relaxed);
    if (info.ssi_signo == SIGINT) interrupts_.fetch_add(1, std::memory_order_relaxed);
  }
}

int Signals::last() {
  read_pending();
  return last_.load(std::memory_order_relaxed);
}

bool Signals::insisted() {
  read_pending();
  const bool any = last_.load(std::memory_order_relaxed) != 0;
  return interrupts_.load(std::memory_order_relaxed) >= 2 ||
         (any && at_once_.load(std::memory_order_relaxed));
}

}  // namespace paceline::parallel
