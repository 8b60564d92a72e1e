#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include "checks.h"
#include "tests.h"
#include "threads.h"

namespace smp::test {

namespace {

void Await(const std::atomic<bool>& flag) {
  while (!flag) std::this_thread::yield();
}

void EachTaskRunsOnce() {
  for (const size_t threads : {1, 2, 4}) {
    const ThreadPool pool(threads);
    Together(3, [&](size_t) {
      for (size_t round = 0; round < 50; ++round) {
        const size_t count = 1 + 37 * round;
        std::vector<int> seen(count);
        pool.For(count, [&](size_t i) { ++seen[i]; });
        EXPECT(std::count(seen.begin(), seen.end(), 1) == static_cast<ptrdiff_t>(count),
               "each task once, and all before For returns");
      }
    });
  }
}

// Two threads have work for a pool of two, whose helper works for the first when the second comes.
void HelpersMakeRoomForCallers() {
  const ThreadPool pool(2);
  std::atomic<bool> helped{false}, second_came{false}, first_done{false}, second_helped{false};
  Together(2, [&](size_t thread) {
    const std::thread::id self = std::this_thread::get_id();
    if (thread == 0) {
      size_t by_helper = 0;
      pool.For(1000, [&](size_t) {
        if (std::this_thread::get_id() == self) {
          Await(helped);
          Await(second_came);
          EXPECT(!second_helped, "two callers fill the pool");
        } else {
          helped = true;
          Await(second_came);
          ++by_helper;
        }
      });
      EXPECT(by_helper == 1, "it leaves at its task's end: " + std::to_string(by_helper));
      first_done = true;
    } else {
      Await(helped);
      pool.For(2, [&](size_t) {
        if (std::this_thread::get_id() == self) {
          second_came = true;
          Await(first_done);
          Await(second_helped);  // it comes back when there is a core again
        } else {
          second_helped = true;
        }
      });
    }
  });
}

}  // namespace

void TestThreadPool() {
  EachTaskRunsOnce();
  HelpersMakeRoomForCallers();
}

// A pool that is shared lives on in whoever took it.
void TestSharedThreadPool() {
  EXPECT(ThreadPool::Shared() == nullptr, "none at first");
  ThreadPool::Share(2);
  const auto taken = ThreadPool::Shared();
  EXPECT(taken != nullptr && taken == ThreadPool::Shared(), "one for all");
  ThreadPool::Share(3);
  EXPECT(taken != ThreadPool::Shared(), "replaced");
  ThreadPool::Share(0);
  EXPECT(ThreadPool::Shared() == nullptr, "none any more");
  std::atomic<size_t> sum{0};
  taken->For(100, [&](size_t i) { sum += i; });
  EXPECT(sum == 4950, std::to_string(sum));
}

}  // namespace smp::test
