// What the tests check with: a failure is printed and counted, and the test goes on.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace smp::test {

inline std::atomic<int> failures{0};

inline void Report(const char* file, int line, const std::string& what) {
  if (++failures <= 50) std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

#define EXPECT(condition, note)                                                          \
  do {                                                                                   \
    if (!(condition)) Report(__FILE__, __LINE__, #condition " -- " + std::string(note)); \
  } while (false)

inline std::vector<float> RandomFloats(size_t count, uint32_t seed, float size = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> out(count);
  for (float& value : out) value = normal(random);
  return out;
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace smp::test
