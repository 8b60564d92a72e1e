// Vectors of eight lanes: AVX2 with FMA.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "vec_x86.h"

namespace smp {
namespace {

using F = __m256;
using I = __m256i;
constexpr size_t kLanes = 8;
constexpr size_t kDenseVectors = 2;
constexpr size_t kAttentionBlocks = 1;

inline F Load(const float* p) { return _mm256_loadu_ps(p); }
inline void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
inline F Set1(float v) { return _mm256_set1_ps(v); }
inline F Add(F a, F b) { return _mm256_add_ps(a, b); }
inline F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F Div(F a, F b) { return _mm256_div_ps(a, b); }
inline F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F Max(F a, F b) { return _mm256_max_ps(a, b); }
inline F Min(F a, F b) { return _mm256_min_ps(a, b); }
inline F Sqrt(F a) { return _mm256_sqrt_ps(a); }
inline F Round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F Abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline F Select(F x, F a, F b) {
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GE_OQ));
}
inline F ScaleByPowerOf2(F a, F n) {  // n from -126 to 127
  const __m256i exponent =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(a, _mm256_castsi256_ps(exponent));
}
inline F Fraction(F x, F* whole) {
  *whole = _mm256_floor_ps(x);
  return Sub(x, *whole);
}
inline void StoreLanes(float* p, F v, uint32_t lanes) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(lanes)), bit);
  _mm256_maskstore_ps(p, _mm256_cmpeq_epi32(set, bit), v);
}

inline I LoadInt(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void StoreInt(void* p, I v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
inline I SetInt(uint32_t v) { return _mm256_set1_epi32(static_cast<int>(v)); }
inline I ZeroInt() { return _mm256_setzero_si256(); }
inline I AddInt(I a, I b) { return _mm256_add_epi32(a, b); }
inline I XorInt(I a, I b) { return _mm256_xor_si256(a, b); }
inline I AndInt(I a, I b) { return _mm256_and_si256(a, b); }
inline I MaxInt(I a, I b) { return _mm256_max_epi32(a, b); }
inline I BitsOf(F v) { return _mm256_castps_si256(v); }
inline F FromBits(I v) { return _mm256_castsi256_ps(v); }
inline F ToFloat(I v) { return _mm256_cvtepi32_ps(v); }
inline I ToInt(F v) { return _mm256_cvtps_epi32(v); }
inline I ClampByte(I i) {
  return _mm256_min_epi32(_mm256_max_epi32(i, ZeroInt()), _mm256_set1_epi32(255));
}
inline I PairWords(I a, I b) { return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa); }
inline I QuadBytes(I a, I b, I c, I d) {
  const I low = _mm256_or_si256(a, _mm256_slli_epi32(b, 8));
  return _mm256_or_si256(low, _mm256_or_si256(_mm256_slli_epi32(c, 16), _mm256_slli_epi32(d, 24)));
}
inline I DotPairs(I acc, I a, I b) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
inline I DotQuads(I acc, I x, I w) { return Bytes<32>::Dot(acc, x, w); }

inline void StoreWords(int16_t* p, const I* v) {
  const __m256i packed = _mm256_packs_epi32(v[0], v[1]);  // inside 128-bit lanes
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

inline void Transpose8(const int32_t* from, size_t from_stride, int32_t* to, size_t to_stride) {
  __m256i r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = LoadInt(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    StoreInt(to + i * to_stride, _mm256_permute2x128_si256(r[i], r[i + 4], 0x20));
    StoreInt(to + (i + 4) * to_stride, _mm256_permute2x128_si256(r[i], r[i + 4], 0x31));
  }
}

inline void Transpose16(const void* source, size_t source_stride, void* target,
                        size_t target_stride) {
  const int32_t* from = static_cast<const int32_t*>(source);
  int32_t* to = static_cast<int32_t*>(target);
  for (size_t i = 0; i < 16; i += 8) {
    for (size_t j = 0; j < 16; j += 8) {
      Transpose8(from + i * source_stride + j, source_stride, to + j * target_stride + i,
                 target_stride);
    }
  }
}

// Byte rows in the order that vec_x86.h explains.
constexpr size_t kLargestSubTile = 32;

template <size_t kTokens>
struct RowSum;

template <>
struct RowSum<32> : FourSums<32> {
  void Get(F* out) const {
    out[0] = ToFloat(s0);
    out[1] = ToFloat(s1);
    out[2] = ToFloat(s2);
    out[3] = ToFloat(s3);
  }
};

template <>
struct RowSum<16> : FourSums<16> {
  void Get(F* out) const {
    out[0] = ToFloat(_mm256_inserti128_si256(_mm256_castsi128_si256(s0), s1, 1));
    out[1] = ToFloat(_mm256_inserti128_si256(_mm256_castsi128_si256(s2), s3, 1));
  }
};

template <size_t kTokens>
inline void StoreBytes(const F* v, uint8_t* out);

template <>
inline void StoreBytes<32>(const F* v, uint8_t* out) {
  const __m256i low = _mm256_packs_epi32(ToInt(v[0]), ToInt(v[1]));
  const __m256i high = _mm256_packs_epi32(ToInt(v[2]), ToInt(v[3]));
  StoreInt(out, _mm256_packus_epi16(low, high));
}

template <>
inline void StoreBytes<16>(const F* v, uint8_t* out) {
  const __m256i a = ToInt(v[0]), b = ToInt(v[1]);
  const __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  const __m128i high = _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
  _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(low, high));
}

}  // namespace
}  // namespace smp
