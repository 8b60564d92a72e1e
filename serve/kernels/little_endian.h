// Numbers as they lie in a file: little endian, at any alignment, on any machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace smp {

template <typename T>
inline T LoadLittle(const uint8_t* bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(bytes[i]) << (8 * i)));
  }
  return value;
}

}  // namespace smp
