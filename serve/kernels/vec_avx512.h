// Vectors of sixteen lanes: AVX-512 F, BW, DQ and VL, with VNNI where SMP_VNNI is defined.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "vec_x86.h"

namespace smp {
namespace {

using F = __m512;
using I = __m512i;
constexpr size_t kLanes = 16;
constexpr size_t kDenseVectors = 4;
constexpr size_t kAttentionBlocks = 4;

inline F Load(const float* p) { return _mm512_loadu_ps(p); }
inline void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline F Set1(float v) { return _mm512_set1_ps(v); }
inline F Add(F a, F b) { return _mm512_add_ps(a, b); }
inline F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F Div(F a, F b) { return _mm512_div_ps(a, b); }
inline F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F Max(F a, F b) { return _mm512_max_ps(a, b); }
inline F Min(F a, F b) { return _mm512_min_ps(a, b); }
inline F Sqrt(F a) { return _mm512_sqrt_ps(a); }
inline F Round(F a) { return _mm512_roundscale_ps(a, 8); }
inline F Abs(F a) { return _mm512_abs_ps(a); }
inline F Select(F x, F a, F b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), b, a);
}
inline F ScaleByPowerOf2(F a, F n) { return _mm512_scalef_ps(a, n); }
inline F Fraction(F x, F* whole) {
  *whole = x;                        // ScaleByPowerOf2 rounds it down
  return _mm512_reduce_ps(x, 0x09);  // less the floor, no exceptions
}
inline void StoreLanes(float* p, F v, uint32_t lanes) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lanes), v);
}

inline I LoadInt(const void* p) { return _mm512_loadu_si512(p); }
inline void StoreInt(void* p, I v) { _mm512_storeu_si512(p, v); }
inline I SetInt(uint32_t v) { return _mm512_set1_epi32(static_cast<int>(v)); }
inline I ZeroInt() { return _mm512_setzero_si512(); }
inline I AddInt(I a, I b) { return _mm512_add_epi32(a, b); }
inline I XorInt(I a, I b) { return _mm512_xor_si512(a, b); }
inline I AndInt(I a, I b) { return _mm512_and_si512(a, b); }
inline I MaxInt(I a, I b) { return _mm512_max_epi32(a, b); }
inline I BitsOf(F v) { return _mm512_castps_si512(v); }
inline F FromBits(I v) { return _mm512_castsi512_ps(v); }
inline F ToFloat(I v) { return _mm512_cvtepi32_ps(v); }
inline I ToInt(F v) { return _mm512_cvtps_epi32(v); }
inline I ClampByte(I i) {
  return _mm512_min_epi32(_mm512_max_epi32(i, ZeroInt()), _mm512_set1_epi32(255));
}
inline I PairWords(I a, I b) {
  return _mm512_mask_blend_epi16(0xaaaaaaaau, a, _mm512_slli_epi32(b, 16));
}
inline I QuadBytes(I a, I b, I c, I d) {
  const I low = _mm512_or_si512(a, _mm512_slli_epi32(b, 8));
  return _mm512_or_si512(low, _mm512_or_si512(_mm512_slli_epi32(c, 16), _mm512_slli_epi32(d, 24)));
}
#ifdef SMP_VNNI
inline I DotPairs(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }
#else
inline I DotPairs(I acc, I a, I b) { return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)); }
#endif

template <>
struct Bytes<64> {
  using V = __m512i;
  static V Load(const uint8_t* p) { return _mm512_load_si512(p); }
  static V Set(uint32_t word) { return SetInt(word); }
  static V Low8(V a, V b) { return _mm512_unpacklo_epi8(a, b); }
  static V High8(V a, V b) { return _mm512_unpackhi_epi8(a, b); }
  static V Low16(V a, V b) { return _mm512_unpacklo_epi16(a, b); }
  static V High16(V a, V b) { return _mm512_unpackhi_epi16(a, b); }
#ifdef SMP_VNNI
  static V Dot(V acc, V x, V w) { return _mm512_dpbusd_epi32(acc, x, w); }
#else
  static V Dot(V acc, V x, V w) {
    const V even = _mm512_madd_epi16(_mm512_and_si512(x, _mm512_set1_epi16(0xff)),
                                     _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8));
    const V odd = _mm512_madd_epi16(_mm512_srli_epi16(x, 8), _mm512_srai_epi16(w, 8));
    return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
  }
#endif
};

inline I DotQuads(I acc, I x, I w) { return Bytes<64>::Dot(acc, x, w); }

inline void StoreWords(int16_t* p, const I* v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(*v));
}

inline void Transpose16(const void* source, size_t source_stride, void* target,
                        size_t target_stride) {
  const int32_t* from = static_cast<const int32_t*>(source);
  int32_t* to = static_cast<int32_t*>(target);
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(from + i * source_stride);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_si512(to + i * target_stride, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_si512(to + (i + 4) * target_stride,
                        _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
    _mm512_storeu_si512(to + (i + 8) * target_stride, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
    _mm512_storeu_si512(to + (i + 12) * target_stride,
                        _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
  }
}

// Byte rows in the order that vec_x86.h explains.
constexpr size_t kLargestSubTile = 64;

template <size_t kTokens>
struct RowSum;

template <>
struct RowSum<64> : FourSums<64> {
  void Get(F* out) const {
    out[0] = ToFloat(s0);
    out[1] = ToFloat(s1);
    out[2] = ToFloat(s2);
    out[3] = ToFloat(s3);
  }
};

template <>
struct RowSum<32> : FourSums<32> {
  void Get(F* out) const {
    out[0] = ToFloat(_mm512_inserti64x4(_mm512_castsi256_si512(s0), s1, 1));
    out[1] = ToFloat(_mm512_inserti64x4(_mm512_castsi256_si512(s2), s3, 1));
  }
};

template <>
struct RowSum<16> : FourSums<16> {
  void Get(F* out) const {
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(s0), s1, 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(s2), s3, 1);
    out[0] = ToFloat(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  }
};

template <size_t kTokens>
inline void StoreBytes(const F* v, uint8_t* out);

template <>
inline void StoreBytes<64>(const F* v, uint8_t* out) {
  const __m512i low = _mm512_packs_epi32(ToInt(v[0]), ToInt(v[1]));
  const __m512i high = _mm512_packs_epi32(ToInt(v[2]), ToInt(v[3]));
  _mm512_store_si512(out, _mm512_packus_epi16(low, high));
}

template <>
inline void StoreBytes<32>(const F* v, uint8_t* out) {
  const __m512i a = ToInt(v[0]), b = ToInt(v[1]);
  const __m256i low =
      _mm256_packs_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
  const __m256i high =
      _mm256_packs_epi32(_mm512_castsi512_si256(b), _mm512_extracti64x4_epi64(b, 1));
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_packus_epi16(low, high));
}

template <>
inline void StoreBytes<16>(const F* v, uint8_t* out) {
  _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(ClampByte(ToInt(v[0]))));
}

}  // namespace
}  // namespace smp
