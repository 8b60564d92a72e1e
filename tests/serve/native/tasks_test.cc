#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "checks.h"
#include "tests.h"
#include "threads.h"

namespace smp::test {

void TestTasks() {
  for (const size_t threads : {1, 3}) {
    std::vector<int> seen(1000);
    Threads(threads).For(seen.size(), [&](size_t i) { ++seen[i]; });
    EXPECT(std::count(seen.begin(), seen.end(), 1) == 1000, "each task once");
    std::string caught;
    try {
      Threads(threads).For(100, [](size_t i) {
        if (i % 2 == 1) throw std::runtime_error("odd");
      });
    } catch (const std::runtime_error& e) {
      caught = e.what();
    }
    EXPECT(caught == "odd", caught);
  }
}

}  // namespace smp::test
