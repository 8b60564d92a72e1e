// A 128-bit hash of bytes, the same on every machine: SipHash-2-4 with a fixed key.
#pragma once

#include <cstddef>
#include <cstdint>

namespace smp {

struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;
};

Hash128 HashBytes(const uint8_t* data, size_t size);

}  // namespace smp
