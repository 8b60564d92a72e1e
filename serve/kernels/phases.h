// A sequence of phases of tasks, run by whatever threads turn up.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "engine.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace smp {

// All phases run inside one Parallel::For: its calls are workers that claim tasks. So a phase costs
// a few hundred nanoseconds and not a wake-up of the pool, and it does not matter how many threads
// there are: a worker that comes late finds nothing left and returns.
//
// A phase's tasks come in groups, one for each tile of tokens. A group waits for its own group of
// the phase before; some phases wait for all groups. Between two of these a worker takes its own
// tiles through all phases, so that they stay in its core's cache, and then helps with the others.
class Phases {
 public:
  static constexpr size_t kMaxWorkers = 64;

  // run(group, task, worker): `worker` < kMaxWorkers is not in use by another thread meanwhile. It
  // must not throw: the others would wait for it.
  using Task = std::function<void(size_t group, size_t task, size_t worker)>;

  // `stage` numbers the sum in `nanoseconds` that the phase's time goes to. after_all: the phase
  // waits for every group of the one before, as it does when their numbers differ.
  void Add(size_t stage, const std::vector<size_t>& tasks, Task run, bool after_all = false) {
    auto phase = std::make_unique<Phase>(stage, tasks, std::move(run));
    phase->after_all =
        after_all || phases_.empty() || phases_.back()->groups.size() != tasks.size();
    phases_.push_back(std::move(phase));
  }

  // `threads`: a guess how many there are; decides which tiles a worker begins with. Returns how
  // many workers had something to do.
  size_t Run(const Parallel& parallel, size_t threads, std::atomic<int64_t>* nanoseconds) {
    std::atomic<size_t> busy{0};
    parallel.For(kMaxWorkers, [&](size_t worker) {
      if (Work(worker, threads, nanoseconds)) busy.fetch_add(1, std::memory_order_relaxed);
    });
    return busy.load();
  }

 private:
  struct alignas(64) Group {
    std::atomic<size_t> next{0};
    std::atomic<size_t> done{0};
    size_t tasks = 0;
  };
  struct Phase {
    Phase(size_t stage, const std::vector<size_t>& tasks, Task run)
        : stage(stage), run(std::move(run)), groups(tasks.size()) {
      for (size_t i = 0; i < tasks.size(); ++i) groups[i].tasks = tasks[i];
    }
    const size_t stage;
    const Task run;
    std::vector<Group> groups;
    bool after_all = true;
  };

  static void Wait(const Group& group) {
    for (size_t spins = 0; group.done.load(std::memory_order_acquire) < group.tasks; ++spins) {
      if (spins < 4096) {
#if defined(__x86_64__) || defined(_M_X64)
        _mm_pause();
#endif
      } else {
        std::this_thread::yield();  // the others may have no core of their own
      }
    }
  }
  static void WaitForAll(const Phase& phase) {
    for (const Group& group : phase.groups) Wait(group);
  }

  bool Work(size_t worker, size_t threads, std::atomic<int64_t>* nanoseconds) {
    bool busy = false;
    auto before = std::chrono::steady_clock::now();
    for (size_t first = 0, end; first < phases_.size(); first = end) {
      for (end = first + 1; end < phases_.size() && !phases_[end]->after_all; ++end) {
      }
      const size_t count = phases_[first]->groups.size();
      const size_t home = threads > 0 ? worker % threads * count / threads : 0;
      if (first > 0) WaitForAll(*phases_[first - 1]);
      for (size_t i = 0; i < count; ++i) {
        const size_t g = home + i < count ? home + i : home + i - count;
        for (size_t p = first; p < end; ++p) {
          Phase& phase = *phases_[p];
          Group& group = phase.groups[g];
          size_t mine = 0;
          if (group.next.load(std::memory_order_relaxed) < group.tasks) {
            if (p > first) Wait(phases_[p - 1]->groups[g]);
            for (size_t task;
                 (task = group.next.fetch_add(1, std::memory_order_relaxed)) < group.tasks;
                 ++mine) {
              phase.run(g, task, worker);
            }
          }
          if (mine > 0) {
            group.done.fetch_add(mine, std::memory_order_acq_rel);
            busy = true;
          }
          if (worker == 0 && nanoseconds != nullptr) {
            const auto after = std::chrono::steady_clock::now();
            nanoseconds[phase.stage].fetch_add(
                std::chrono::duration_cast<std::chrono::nanoseconds>(after - before).count(),
                std::memory_order_relaxed);
            before = after;
          }
        }
      }
    }
    // The caller's memory is written when all of the last phase is.
    if (busy && !phases_.empty()) WaitForAll(*phases_.back());
    return busy;
  }

  std::vector<std::unique_ptr<Phase>> phases_;
};

}  // namespace smp
