// Runs tasks on other people's threads, through which no exception may pass.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>

namespace smp {

class Tasks {
 public:
  explicit Tasks(const std::function<void(size_t)>& task) : task_(task) {}

  // Keeps the first exception; tasks that start after one are left out.
  void Run(size_t index) noexcept {
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      task_(index);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  // After all threads are done.
  void Rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const std::function<void(size_t)>& task_;
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace smp
