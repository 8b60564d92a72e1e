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
// A phase's tasks come in groups, one for each tile of tokens. Each worker begins with tiles of
// its own, which are then in its core's cache, and helps with the others when it is done. A group
// waits for its own group of the phase before, and for whole phases only where Waits says so.
class Phases {
 public:
  static constexpr size_t kMaxWorkers = 64;
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // run(group, task, worker): `worker` < kMaxWorkers is not in use by another thread meanwhile. It
  // must not throw: the others would wait for it.
  using Task = std::function<void(size_t group, size_t task, size_t worker)>;

  // What a phase waits for, besides its group of the phase before.
  struct Waits {
    bool all_before = false;  // every group of the phase before
    size_t all_of = kNone;    // every group of this phase
  };

  // `stage` numbers the sum in `nanoseconds` that the phase's time goes to. Returns the phase's
  // number. A phase with as many groups as the one before waits group by group, others for all.
  size_t Add(size_t stage, const std::vector<size_t>& tasks, Task run, Waits waits) {
    auto phase = std::make_unique<Phase>(stage, tasks, std::move(run));
    phase->all_of = waits.all_of;
    phase->all_before =
        waits.all_before || phases_.empty() || phases_.back()->groups.size() != tasks.size();
    phases_.push_back(std::move(phase));
    return phases_.size() - 1;
  }
  size_t Add(size_t stage, const std::vector<size_t>& tasks, Task run) {
    return Add(stage, tasks, std::move(run), Waits());
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
    bool all_before = true;
    size_t all_of = kNone;
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
    for (size_t p = 0; p < phases_.size(); ++p) {
      Phase& phase = *phases_[p];
      const size_t count = phase.groups.size();
      const size_t home = threads > 0 ? worker % threads * count / threads : 0;
      bool waited = false;
      for (size_t i = 0; i < count; ++i) {
        const size_t g = home + i < count ? home + i : home + i - count;
        Group& group = phase.groups[g];
        if (group.next.load(std::memory_order_relaxed) >= group.tasks) continue;
        if (!waited) {
          if (phase.all_of != kNone) WaitForAll(*phases_[phase.all_of]);
          if (phase.all_before && p > 0) WaitForAll(*phases_[p - 1]);
          waited = true;
        }
        if (!phase.all_before) Wait(phases_[p - 1]->groups[g]);
        size_t mine = 0;
        for (size_t task; (task = group.next.fetch_add(1, std::memory_order_relaxed)) < group.tasks;
             ++mine) {
          phase.run(g, task, worker);
        }
        if (mine > 0) {
          group.done.fetch_add(mine, std::memory_order_acq_rel);
          busy = true;
        }
      }
      if (worker == 0 && nanoseconds != nullptr) {
        const auto after = std::chrono::steady_clock::now();
        nanoseconds[phase.stage].fetch_add(
            std::chrono::duration_cast<std::chrono::nanoseconds>(after - before).count(),
            std::memory_order_relaxed);
        before = after;
      }
    }
    // The caller's memory is written when all of the last phase is.
    if (busy && !phases_.empty()) WaitForAll(*phases_.back());
    return busy;
  }

  std::vector<std::unique_ptr<Phase>> phases_;
};

}  // namespace smp
