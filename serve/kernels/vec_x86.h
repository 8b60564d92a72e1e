// What AVX2 and AVX-512 share: sums of four interleaved byte rows, for vectors of any width.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace smp {
namespace {

// The instructions on vectors of so many bytes. Not a template over the vector types: those lose
// their attributes as template arguments.
template <size_t kSize>
struct Bytes;

template <>
struct Bytes<16> {
  using V = __m128i;
  static V Load(const uint8_t* p) { return _mm_load_si128(reinterpret_cast<const V*>(p)); }
  static V Set(uint32_t word) { return _mm_set1_epi32(static_cast<int>(word)); }
  static V Low8(V a, V b) { return _mm_unpacklo_epi8(a, b); }
  static V High8(V a, V b) { return _mm_unpackhi_epi8(a, b); }
  static V Low16(V a, V b) { return _mm_unpacklo_epi16(a, b); }
  static V High16(V a, V b) { return _mm_unpackhi_epi16(a, b); }
#ifdef SMP_VNNI
  static V Dot(V acc, V x, V w) { return _mm_dpbusd_epi32(acc, x, w); }
#else
  // Exact, where maddubs would saturate: even and odd bytes as words.
  static V Dot(V acc, V x, V w) {
    const V even = _mm_madd_epi16(_mm_and_si128(x, _mm_set1_epi16(0xff)),
                                  _mm_srai_epi16(_mm_slli_epi16(w, 8), 8));
    const V odd = _mm_madd_epi16(_mm_srli_epi16(x, 8), _mm_srai_epi16(w, 8));
    return _mm_add_epi32(acc, _mm_add_epi32(even, odd));
  }
#endif
};

template <>
struct Bytes<32> {
  using V = __m256i;
  static V Load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const V*>(p)); }
  static V Set(uint32_t word) { return _mm256_set1_epi32(static_cast<int>(word)); }
  static V Low8(V a, V b) { return _mm256_unpacklo_epi8(a, b); }
  static V High8(V a, V b) { return _mm256_unpackhi_epi8(a, b); }
  static V Low16(V a, V b) { return _mm256_unpacklo_epi16(a, b); }
  static V High16(V a, V b) { return _mm256_unpackhi_epi16(a, b); }
#ifdef SMP_VNNI
  static V Dot(V acc, V x, V w) { return _mm256_dpbusd_epi32(acc, x, w); }
#else
  static V Dot(V acc, V x, V w) {
    const V even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0xff)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
    const V odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
  }
#endif
};

// Sums over a vector of tokens. Unpacking works inside 128-bit lanes, so bytes lie in the order
// that brings consecutive tokens into each of the four sums: byte 16 l + 4 j + i of a vector with
// n lanes is token 4 n j + 4 l + i.
template <size_t kSize>
struct FourSums {
  using B = Bytes<kSize>;
  using V = typename B::V;
  V s0 = B::Set(0), s1 = s0, s2 = s0, s3 = s0;

  void Add(const uint8_t* p0, const uint8_t* p1, const uint8_t* p2, const uint8_t* p3,
           uint32_t weight) {
    const V r0 = B::Load(p0), r1 = B::Load(p1), r2 = B::Load(p2), r3 = B::Load(p3);
    const V w = B::Set(weight);
    const V low01 = B::Low8(r0, r1), high01 = B::High8(r0, r1);
    const V low23 = B::Low8(r2, r3), high23 = B::High8(r2, r3);
    s0 = B::Dot(s0, B::Low16(low01, low23), w);
    s1 = B::Dot(s1, B::High16(low01, low23), w);
    s2 = B::Dot(s2, B::Low16(high01, high23), w);
    s3 = B::Dot(s3, B::High16(high01, high23), w);
  }
};

}  // namespace
}  // namespace smp
