// What is done to each token: minimum and maximum, bytes, normalisation.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels_math.h"

namespace smp {
namespace {

void MinMax(const float* x, size_t features, size_t width, float* minimum, float* maximum) {
  for (size_t column = 0; column < 16; column += kLanes) {
    F low = Set1(0.0f), high = low, bad = low;
    const float* p = x + column;
    for (size_t f = 0; f < features; ++f, p += width) {
      const F v = Load(p);
      low = Min(v, low);
      high = Max(v, high);
      bad = Fma(v, Set1(0.0f), bad);  // NaN once a value is NaN or infinite
    }
    Store(minimum + column, low);
    Store(maximum + column, Add(high, bad));
  }
}

void QuantizeParameters(const float* minimum, const float* maximum, size_t width, float* inverse,
                        float* zero, float* scale, float* offset) {
  for (size_t t = 0; t < width; ++t) {
    const float low = std::min(minimum[t], 0.0f);
    const float high = maximum[t] < 0.0f ? 0.0f : maximum[t];  // keeps NaN
    const float range = high - low;
    const bool tiny = range < 1e-30f;
    inverse[t] = tiny ? 0.0f : 255.0f / range;
    zero[t] = std::nearbyint(-low * inverse[t]);
    scale[t] = tiny ? 0.0f : range / 255.0f;
    offset[t] = scale[t] * zero[t];
  }
}

template <size_t kWidth>
void QuantizeRowsOf(const float* x, size_t features, const float* inverse, const float* zero,
                    uint8_t* bytes) {
  constexpr size_t kSub = kWidth < kLargestSubTile ? kWidth : kLargestSubTile;
  constexpr size_t kVectors = kSub / kLanes;
  for (size_t column = 0; column < kWidth; column += kSub) {
    F factor[kVectors], shift[kVectors];
    for (size_t i = 0; i < kVectors; ++i) {
      factor[i] = Load(inverse + column + i * kLanes);
      shift[i] = Load(zero + column + i * kLanes);
    }
    for (size_t f = 0; f < features; ++f) {
      const float* p = x + f * kWidth + column;
      F v[kVectors];
      for (size_t i = 0; i < kVectors; ++i) v[i] = Fma(Load(p + i * kLanes), factor[i], shift[i]);
      StoreBytes<kSub>(v, bytes + f * kWidth + column);
    }
  }
}

void QuantizeRows(const float* x, size_t features, size_t width, const float* inverse,
                  const float* zero, uint8_t* bytes) {
  if (width == 64) return QuantizeRowsOf<64>(x, features, inverse, zero, bytes);
  if (width == 32) return QuantizeRowsOf<32>(x, features, inverse, zero, bytes);
  QuantizeRowsOf<16>(x, features, inverse, zero, bytes);
}

void QuantizeQuads(const float* x, size_t features, size_t width, const float* inverse,
                   const float* zero, uint8_t* bytes) {
  for (size_t f = 0; f < features; f += 4) {
    for (size_t column = 0; column < width; column += kLanes) {
      I byte[4];
      for (size_t i = 0; i < 4; ++i) {
        // Past the last feature the weights are zero: any byte will do.
        const float* p = x + std::min(f + i, features - 1) * width + column;
        byte[i] = ClampByte(ToInt(Fma(Load(p), Load(inverse + column), Load(zero + column))));
      }
      StoreInt(bytes + (f / 4 * width + column) * 4, QuadBytes(byte[0], byte[1], byte[2], byte[3]));
    }
  }
}

void LayerNorm(float* x, size_t features, size_t width, const float* gamma, const float* beta,
               float epsilon, float* minimum, float* maximum) {
  const F count = Set1(static_cast<float>(features));
  F mean[kPerBlock], factor[kPerBlock], low[kPerBlock], high[kPerBlock];
  for (size_t i = 0; i < kPerBlock; ++i) {
    F sum = Set1(0.0f), other = sum;
    const float* p = x + i * kLanes;
    size_t f = 0;
    for (; f + 2 <= features; f += 2) {
      sum = Add(sum, Load(p + f * width));
      other = Add(other, Load(p + (f + 1) * width));
    }
    if (f < features) sum = Add(sum, Load(p + f * width));
    mean[i] = Div(Add(sum, other), count);
  }
  for (size_t i = 0; i < kPerBlock; ++i) {
    F sum = Set1(0.0f), other = sum;
    const float* p = x + i * kLanes;
    size_t f = 0;
    for (; f + 2 <= features; f += 2) {
      const F a = Sub(Load(p + f * width), mean[i]), b = Sub(Load(p + (f + 1) * width), mean[i]);
      sum = Fma(a, a, sum);
      other = Fma(b, b, other);
    }
    if (f < features) {
      const F a = Sub(Load(p + f * width), mean[i]);
      sum = Fma(a, a, sum);
    }
    const F variance = Div(Add(sum, other), count);
    factor[i] = Div(Set1(1.0f), Sqrt(Add(variance, Set1(epsilon))));
    low[i] = Set1(0.0f);
    high[i] = Set1(0.0f);
  }
  for (size_t f = 0; f < features; ++f) {
    const F g = Set1(gamma[f]), b = Set1(beta[f]);
    for (size_t i = 0; i < kPerBlock; ++i) {
      float* p = x + f * width + i * kLanes;
      const F v = Fma(Mul(Sub(Load(p), mean[i]), factor[i]), g, b);
      Store(p, v);
      low[i] = Min(v, low[i]);
      high[i] = Max(v, high[i]);
    }
  }
  for (size_t i = 0; i < kPerBlock; ++i) {
    Store(minimum + i * kLanes, low[i]);
    // A token with NaN or infinity has no finite factor; it must not look like a number.
    Store(maximum + i * kLanes, Fma(Mul(mean[i], factor[i]), Set1(0.0f), high[i]));
  }
}

}  // namespace
}  // namespace smp
