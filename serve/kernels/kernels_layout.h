// Between rows of tokens and tiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels_math.h"

namespace smp {
namespace {

void Pack(const float* const* tokens, size_t count, size_t features, size_t width, float* x) {
  alignas(64) float rows[16 * 16], columns[16 * 16];
  for (size_t first = 0; first < width; first += 16) {
    const size_t here = first < count ? std::min<size_t>(16, count - first) : 0;
    std::memset(rows, 0, sizeof rows);
    for (size_t f = 0; f < features; f += 16) {
      const size_t step = std::min<size_t>(16, features - f);
      for (size_t t = 0; t < here; ++t) {
        std::memcpy(rows + 16 * t, tokens[first + t] + f, step * sizeof(float));
      }
      Transpose16(rows, 16, columns, 16);
      for (size_t i = 0; i < step; ++i) {
        std::memcpy(x + (f + i) * width + first, columns + 16 * i, 16 * sizeof(float));
      }
    }
  }
}

void Unpack(const float* x, size_t features, size_t width, size_t count, float* const* tokens) {
  alignas(64) float rows[16 * 16], columns[16 * 16];
  std::memset(columns, 0, sizeof columns);
  for (size_t first = 0; first < count; first += 16) {
    const size_t here = std::min<size_t>(16, count - first);
    for (size_t f = 0; f < features; f += 16) {
      const size_t step = std::min<size_t>(16, features - f);
      for (size_t i = 0; i < step; ++i) {
        std::memcpy(columns + 16 * i, x + (f + i) * width + first, 16 * sizeof(float));
      }
      Transpose16(columns, 16, rows, 16);
      for (size_t t = 0; t < here; ++t) {
        if (tokens[first + t] != nullptr) {
          std::memcpy(tokens[first + t] + f, rows + 16 * t, step * sizeof(float));
        }
      }
    }
  }
}

}  // namespace
}  // namespace smp
