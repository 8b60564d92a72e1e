// Vectors of sixteen lanes: AVX-512 F, BW, DQ and VL, with VNNI where SMP_VNNI is defined.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

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
inline I DotQuads(I acc, I x, I w) { return _mm512_dpbusd_epi32(acc, x, w); }
inline __m256i DotQuads(__m256i acc, __m256i x, __m256i w) {
  return _mm256_dpbusd_epi32(acc, x, w);
}
inline __m128i DotQuads(__m128i acc, __m128i x, __m128i w) { return _mm_dpbusd_epi32(acc, x, w); }
#else
inline I DotPairs(I acc, I a, I b) { return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)); }
// Exact, where maddubs would saturate: even and odd bytes as words.
inline I DotQuads(I acc, I x, I w) {
  const I even = _mm512_madd_epi16(_mm512_and_si512(x, _mm512_set1_epi16(0xff)),
                                   _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8));
  const I odd = _mm512_madd_epi16(_mm512_srli_epi16(x, 8), _mm512_srai_epi16(w, 8));
  return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
}
inline __m256i DotQuads(__m256i acc, __m256i x, __m256i w) {
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0xff)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
inline __m128i DotQuads(__m128i acc, __m128i x, __m128i w) {
  const __m128i even = _mm_madd_epi16(_mm_and_si128(x, _mm_set1_epi16(0xff)),
                                      _mm_srai_epi16(_mm_slli_epi16(w, 8), 8));
  const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(x, 8), _mm_srai_epi16(w, 8));
  return _mm_add_epi32(acc, _mm_add_epi32(even, odd));
}
#endif

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

// Byte rows. Unpacking works inside 128-bit lanes, so bytes lie in the order that brings
// consecutive tokens into each of the four sums: byte 16 l + 4 j + i of a vector with n lanes is
// token 4 n j + 4 l + i.
constexpr size_t kLargestSubTile = 64;

template <size_t kTokens>
struct RowSum;

template <>
struct RowSum<64> {
  __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
  void Add(const uint8_t* p0, const uint8_t* p1, const uint8_t* p2, const uint8_t* p3,
           uint32_t weight) {
    const __m512i r0 = _mm512_load_si512(p0), r1 = _mm512_load_si512(p1);
    const __m512i r2 = _mm512_load_si512(p2), r3 = _mm512_load_si512(p3);
    const __m512i w = _mm512_set1_epi32(static_cast<int>(weight));
    const __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1);
    const __m512i low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
    s0 = DotQuads(s0, _mm512_unpacklo_epi16(low01, low23), w);
    s1 = DotQuads(s1, _mm512_unpackhi_epi16(low01, low23), w);
    s2 = DotQuads(s2, _mm512_unpacklo_epi16(high01, high23), w);
    s3 = DotQuads(s3, _mm512_unpackhi_epi16(high01, high23), w);
  }
  void Get(F* out) const {
    out[0] = ToFloat(s0);
    out[1] = ToFloat(s1);
    out[2] = ToFloat(s2);
    out[3] = ToFloat(s3);
  }
};

template <>
struct RowSum<32> {
  __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
  void Add(const uint8_t* p0, const uint8_t* p1, const uint8_t* p2, const uint8_t* p3,
           uint32_t weight) {
    const auto load = [](const uint8_t* p) {
      return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
    };
    const __m256i r0 = load(p0), r1 = load(p1), r2 = load(p2), r3 = load(p3);
    const __m256i w = _mm256_set1_epi32(static_cast<int>(weight));
    const __m256i low01 = _mm256_unpacklo_epi8(r0, r1), high01 = _mm256_unpackhi_epi8(r0, r1);
    const __m256i low23 = _mm256_unpacklo_epi8(r2, r3), high23 = _mm256_unpackhi_epi8(r2, r3);
    s0 = DotQuads(s0, _mm256_unpacklo_epi16(low01, low23), w);
    s1 = DotQuads(s1, _mm256_unpackhi_epi16(low01, low23), w);
    s2 = DotQuads(s2, _mm256_unpacklo_epi16(high01, high23), w);
    s3 = DotQuads(s3, _mm256_unpackhi_epi16(high01, high23), w);
  }
  void Get(F* out) const {
    out[0] = ToFloat(_mm512_inserti64x4(_mm512_castsi256_si512(s0), s1, 1));
    out[1] = ToFloat(_mm512_inserti64x4(_mm512_castsi256_si512(s2), s3, 1));
  }
};

template <>
struct RowSum<16> {
  __m128i s0 = _mm_setzero_si128(), s1 = s0, s2 = s0, s3 = s0;
  void Add(const uint8_t* p0, const uint8_t* p1, const uint8_t* p2, const uint8_t* p3,
           uint32_t weight) {
    const auto load = [](const uint8_t* p) {
      return _mm_load_si128(reinterpret_cast<const __m128i*>(p));
    };
    const __m128i r0 = load(p0), r1 = load(p1), r2 = load(p2), r3 = load(p3);
    const __m128i w = _mm_set1_epi32(static_cast<int>(weight));
    const __m128i low01 = _mm_unpacklo_epi8(r0, r1), high01 = _mm_unpackhi_epi8(r0, r1);
    const __m128i low23 = _mm_unpacklo_epi8(r2, r3), high23 = _mm_unpackhi_epi8(r2, r3);
    s0 = DotQuads(s0, _mm_unpacklo_epi16(low01, low23), w);
    s1 = DotQuads(s1, _mm_unpackhi_epi16(low01, low23), w);
    s2 = DotQuads(s2, _mm_unpacklo_epi16(high01, high23), w);
    s3 = DotQuads(s3, _mm_unpackhi_epi16(high01, high23), w);
  }
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
