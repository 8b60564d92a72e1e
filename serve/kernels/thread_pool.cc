#include "thread_pool.h"

#include <algorithm>
#include <system_error>

namespace smp {

// One For; lives on its caller's stack. All but `next` is guarded by the pool's mutex.
struct ThreadPool::Job {
  const std::function<void(size_t)>& fn;
  const size_t count;
  std::atomic<size_t> next{0};
  size_t helpers = 0;
  std::condition_variable left;

  Job(size_t count, const std::function<void(size_t)>& fn) : fn(fn), count(count) {}

  bool HasWork() const { return next.load(std::memory_order_relaxed) < count; }
  // One task; false if none was left.
  bool WorkOnce() {
    const size_t i = next.fetch_add(1, std::memory_order_relaxed);
    if (i >= count) return false;
    fn(i);
    return true;
  }
};

ThreadPool::ThreadPool(size_t threads) : threads_(threads) {
  try {
    for (size_t i = 1; i < threads; ++i) helpers_.emplace_back([this] { Help(); });
  } catch (const std::system_error&) {  // the system has no more threads: fewer do it too
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadPool::For(size_t count, const std::function<void(size_t)>& fn) const {
  if (count == 0) return;
  Job job(count, fn);
  size_t wanted = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
    ++working_;
    wanted = std::min(count - 1, threads_ - std::min<size_t>(threads_, working_));
  }
  for (size_t i = 0; i < wanted; ++i) wake_.notify_one();
  while (job.WorkOnce()) {
  }
  std::unique_lock<std::mutex> lock(mutex_);
  jobs_.remove(&job);
  job.left.wait(lock, [&] { return job.helpers == 0; });
  --working_;
  if (Waiting() != nullptr) wake_.notify_one();
}

// The oldest job that still has something to do.
ThreadPool::Job* ThreadPool::Waiting() const {
  for (Job* job : jobs_) {
    if (job->HasWork()) return job;
  }
  return nullptr;
}

// Callers that came meanwhile have the cores; of the helpers, as many leave as there are too many.
bool ThreadPool::LeaveIfCrowded() {
  size_t working = working_;
  while (working > threads_) {
    if (working_.compare_exchange_weak(working, working - 1)) return true;
  }
  return false;
}

void ThreadPool::Help() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    Job* job = nullptr;
    wake_.wait(lock, [&] {
      job = working_ < threads_ ? Waiting() : nullptr;
      return stop_ || job != nullptr;
    });
    if (stop_) return;
    ++job->helpers;
    ++working_;
    lock.unlock();
    bool left = false;
    while (!left && job->WorkOnce()) left = LeaveIfCrowded();
    lock.lock();
    if (!left) --working_;
    if (--job->helpers == 0) job->left.notify_one();
  }
}

namespace {

struct SharedPool {
  std::mutex mutex;
  std::shared_ptr<const ThreadPool> pool;
};

// Never destroyed: its threads may outlive this library's static objects.
SharedPool& TheSharedPool() {
  static SharedPool& shared = *new SharedPool;
  return shared;
}

}  // namespace

void ThreadPool::Share(size_t threads) {
  std::shared_ptr<const ThreadPool> pool;
  if (threads > 0) pool = std::make_shared<ThreadPool>(threads);
  SharedPool& shared = TheSharedPool();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.pool.swap(pool);
}

std::shared_ptr<const ThreadPool> ThreadPool::Shared() {
  SharedPool& shared = TheSharedPool();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  return shared.pool;
}

}  // namespace smp
