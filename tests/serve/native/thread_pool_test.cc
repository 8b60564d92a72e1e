#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#include "checks.h"
#include "tests.h"
#include "threads.h"

namespace smp::test {

void TestThreadPool() {
  for (const size_t threads : {1, 2, 4}) {
    const ThreadPool pool(threads);
    std::atomic<size_t> working{0}, most{0};
    Together(3, [&](size_t) {
      for (size_t round = 0; round < 50; ++round) {
        const size_t count = 1 + 37 * round;
        std::vector<int> seen(count);
        pool.For(count, [&](size_t i) {
          const size_t now = ++working;
          for (size_t before = most; before < now && !most.compare_exchange_weak(before, now);) {
          }
          ++seen[i];
          --working;
        });
        EXPECT(std::count(seen.begin(), seen.end(), 1) == static_cast<ptrdiff_t>(count),
               "each task once, and all before For returns");
      }
    });
    // Callers work themselves; beyond them nobody does unless the pool is larger.
    EXPECT(most <= std::max<size_t>(3, threads), std::to_string(most));
  }
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
