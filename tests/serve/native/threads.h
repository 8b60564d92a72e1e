// Threads for the engine to work with, and for the tests to call it from.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "engine.h"
#include "tasks.h"

namespace smp::test {

class Threads final : public Parallel {
 public:
  explicit Threads(size_t count) : count_(count) {}
  void For(size_t count, const std::function<void(size_t)>& fn) const override {
    Tasks tasks(fn);
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i; (i = next.fetch_add(1)) < count;) tasks.Run(i);
    };
    std::vector<std::thread> others;
    for (size_t i = 1; i < count_; ++i) others.emplace_back(work);
    work();
    for (std::thread& thread : others) thread.join();
    tasks.Rethrow();
  }

 private:
  size_t count_;
};

inline void Together(size_t threads, const std::function<void(size_t)>& fn) {
  std::vector<std::thread> all;
  for (size_t i = 0; i < threads; ++i) all.emplace_back(fn, i);
  for (std::thread& thread : all) thread.join();
}

}  // namespace smp::test
