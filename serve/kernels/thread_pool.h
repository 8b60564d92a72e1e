// Threads of this process, for sessions that are to have none of their own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine.h"

namespace smp {

// Idle threads sleep. Those that call For work as well and count: with as many callers as the pool
// is large, each runs alone. A helper leaves, at its task's end, to a caller that came meanwhile,
// so that no more threads work than there are cores for.
class ThreadPool final : public Parallel {
 public:
  // threads: that work at once, a caller included.
  explicit ThreadPool(size_t threads);
  ~ThreadPool() override;  // when no For runs

  // fn must not throw. Safe to call from several threads at once.
  void For(size_t count, const std::function<void(size_t)>& fn) const override;

  // The one that all operators of the process use instead of their sessions' threads from now on;
  // 0: none. Runs that have begun end as they began.
  static void Share(size_t threads);
  static std::shared_ptr<const ThreadPool> Shared();  // or null

 private:
  struct Job;

  void Help();
  bool LeaveIfCrowded();
  Job* Waiting() const;

  const size_t threads_;
  mutable std::mutex mutex_;
  mutable std::condition_variable wake_;
  mutable std::list<Job*> jobs_;
  mutable std::atomic<size_t> working_{0};  // grows only under the mutex
  bool stop_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace smp
