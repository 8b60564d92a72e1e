// Vectors of one lane: the portable kernels, and the reference for all others.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace smp {
namespace {

using F = float;
using I = int32_t;
constexpr size_t kLanes = 1;
constexpr size_t kDenseVectors = 16;    // vectors of tokens a dense kernel keeps a row
constexpr size_t kAttentionBlocks = 1;  // of 16 queries at a time

inline F Load(const float* p) { return *p; }
inline void Store(float* p, F v) { *p = v; }
inline F Set1(float v) { return v; }
inline F Add(F a, F b) { return a + b; }
inline F Sub(F a, F b) { return a - b; }
inline F Mul(F a, F b) { return a * b; }
inline F Div(F a, F b) { return a / b; }
inline F Fma(F a, F b, F c) { return a * b + c; }
inline F Max(F a, F b) { return a > b ? a : b; }  // b if one is NaN
inline F Min(F a, F b) { return a < b ? a : b; }
inline F Sqrt(F a) { return std::sqrt(a); }
inline F Round(F a) { return std::nearbyint(a); }
inline F Abs(F a) { return std::fabs(a); }
// a where x >= 0, else b
inline F Select(F x, F a, F b) { return x >= 0.0f ? a : b; }
inline F ScaleByPowerOf2(F a, F n) {
  return std::isnan(n) ? n : std::ldexp(a, static_cast<int>(n));
}
// x less the largest integer below it, which goes to *whole.
inline F Fraction(F x, F* whole) {
  *whole = std::floor(x);
  return x - *whole;
}
inline void StoreLanes(float* p, F v, uint32_t lanes) {
  if (lanes & 1) *p = v;
}

inline I LoadInt(const void* p) {
  I v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void StoreInt(void* p, I v) { std::memcpy(p, &v, sizeof v); }
inline I SetInt(uint32_t v) { return static_cast<I>(v); }
inline I ZeroInt() { return 0; }
inline I AddInt(I a, I b) {  // wraps
  return static_cast<I>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
inline I XorInt(I a, I b) { return a ^ b; }
inline I AndInt(I a, I b) { return a & b; }
inline I MaxInt(I a, I b) { return a > b ? a : b; }
inline I BitsOf(F v) { return LoadInt(&v); }
inline F FromBits(I v) {
  F f;
  std::memcpy(&f, &v, sizeof f);
  return f;
}
inline F ToFloat(I v) { return static_cast<F>(v); }
inline I ToInt(F v) {
  return v >= -2147483648.0f && v < 2147483648.0f ? static_cast<I>(std::nearbyint(v)) : INT32_MIN;
}
inline I ClampByte(I i) { return i < 0 ? 0 : i > 255 ? 255 : i; }
// The low halves of a and b as pairs: a | b << 16.
inline I PairWords(I a, I b) {
  return static_cast<I>((static_cast<uint32_t>(a) & 0xffffu) | (static_cast<uint32_t>(b) << 16));
}
// Four bytes a lane.
inline I QuadBytes(I a, I b, I c, I d) {
  return static_cast<I>(static_cast<uint32_t>(a) | (static_cast<uint32_t>(b) << 8) |
                        (static_cast<uint32_t>(c) << 16) | (static_cast<uint32_t>(d) << 24));
}
// acc + the products of two int16 pairs.
inline I DotPairs(I acc, I a, I b) {
  return acc + static_cast<int16_t>(a) * static_cast<int16_t>(b) +
         static_cast<int16_t>(static_cast<uint32_t>(a) >> 16) *
             static_cast<int16_t>(static_cast<uint32_t>(b) >> 16);
}
// acc + the products of four unsigned bytes with four signed ones.
inline I DotQuads(I acc, I x, I w) {
  for (int i = 0; i < 4; ++i) {
    acc += static_cast<uint8_t>(static_cast<uint32_t>(x) >> (8 * i)) *
           static_cast<int8_t>(static_cast<uint32_t>(w) >> (8 * i));
  }
  return acc;
}
// Sixteen int32 to int16, clamped.
inline void StoreWords(int16_t* p, const I* v) {
  for (int i = 0; i < 16; ++i) {
    p[i] = static_cast<int16_t>(v[i] > 32767 ? 32767 : v[i] < -32768 ? -32768 : v[i]);
  }
}

// rows and columns of 16 x 16 four-byte words
inline void Transpose16(const void* source, size_t source_stride, void* target,
                        size_t target_stride) {
  const char* from = static_cast<const char*>(source);
  char* to = static_cast<char*>(target);
  for (size_t i = 0; i < 16; ++i) {
    for (size_t j = 0; j < 16; ++j) {
      std::memcpy(to + 4 * (j * target_stride + i), from + 4 * (i * source_stride + j), 4);
    }
  }
}

// The sums of one row over a sub-tile of kTokens tokens, four non-zeros at a time.
constexpr size_t kLargestSubTile = 64;

template <size_t kTokens>
struct RowSum {
  I sum[kTokens] = {};
  void Add(const uint8_t* r0, const uint8_t* r1, const uint8_t* r2, const uint8_t* r3,
           uint32_t weight) {
    const int w0 = static_cast<int8_t>(weight), w1 = static_cast<int8_t>(weight >> 8);
    const int w2 = static_cast<int8_t>(weight >> 16), w3 = static_cast<int8_t>(weight >> 24);
    for (size_t i = 0; i < kTokens; ++i)
      sum[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i];
  }
  void Get(F* out) const {
    for (size_t i = 0; i < kTokens; ++i) out[i] = static_cast<F>(sum[i]);
  }
};

template <size_t kTokens>
inline void StoreBytes(const F* v, uint8_t* out) {
  for (size_t i = 0; i < kTokens; ++i) out[i] = static_cast<uint8_t>(ClampByte(ToInt(v[i])));
}

}  // namespace
}  // namespace smp
