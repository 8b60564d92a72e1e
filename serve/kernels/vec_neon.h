// Vectors of four lanes: AArch64's NEON, with the dot product of bytes (FEAT_DotProd) and of
// unsigned with signed bytes (FEAT_I8MM) where the compiler may use them.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace smp {
namespace {

using F = float32x4_t;
using I = int32x4_t;
constexpr size_t kLanes = 4;
constexpr size_t kDenseVectors = 4;
constexpr size_t kAttentionBlocks = 1;

inline F Load(const float* p) { return vld1q_f32(p); }
inline void Store(float* p, F v) { vst1q_f32(p, v); }
inline F Set1(float v) { return vdupq_n_f32(v); }
inline F Add(F a, F b) { return vaddq_f32(a, b); }
inline F Sub(F a, F b) { return vsubq_f32(a, b); }
inline F Mul(F a, F b) { return vmulq_f32(a, b); }
inline F Div(F a, F b) { return vdivq_f32(a, b); }
inline F Fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
// b if one is NaN, which no maximum of NEON's own gives.
inline F Max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline F Min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline F Sqrt(F a) { return vsqrtq_f32(a); }
inline F Round(F a) { return vrndnq_f32(a); }
inline F Abs(F a) { return vabsq_f32(a); }
inline F Select(F x, F a, F b) { return vbslq_f32(vcgezq_f32(x), a, b); }
inline F ScaleByPowerOf2(F a, F n) {  // n from -126 to 127
  const int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23);
  return vmulq_f32(a, vreinterpretq_f32_s32(exponent));
}
inline F Fraction(F x, F* whole) {
  *whole = vrndmq_f32(x);
  return Sub(x, *whole);
}
inline void StoreLanes(float* p, F v, uint32_t lanes) {
  if (lanes == 15) return Store(p, v);
  // One by one: another thread may be writing the lanes between.
  if (lanes & 1) vst1q_lane_f32(p, v, 0);
  if (lanes & 2) vst1q_lane_f32(p + 1, v, 1);
  if (lanes & 4) vst1q_lane_f32(p + 2, v, 2);
  if (lanes & 8) vst1q_lane_f32(p + 3, v, 3);
}

inline I LoadInt(const void* p) {
  return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
}
inline void StoreInt(void* p, I v) { vst1q_u8(static_cast<uint8_t*>(p), vreinterpretq_u8_s32(v)); }
inline I SetInt(uint32_t v) { return vreinterpretq_s32_u32(vdupq_n_u32(v)); }
inline I ZeroInt() { return vdupq_n_s32(0); }
inline I AddInt(I a, I b) { return vaddq_s32(a, b); }
inline I XorInt(I a, I b) { return veorq_s32(a, b); }
inline I AndInt(I a, I b) { return vandq_s32(a, b); }
inline I MaxInt(I a, I b) { return vmaxq_s32(a, b); }
inline I BitsOf(F v) { return vreinterpretq_s32_f32(v); }
inline F FromBits(I v) { return vreinterpretq_f32_s32(v); }
inline F ToFloat(I v) { return vcvtq_f32_s32(v); }
inline I ToInt(F v) { return vcvtnq_s32_f32(v); }
inline I ClampByte(I i) { return vminq_s32(vmaxq_s32(i, ZeroInt()), vdupq_n_s32(255)); }
inline I PairWords(I a, I b) { return vsliq_n_s32(a, b, 16); }
inline I QuadBytes(I a, I b, I c, I d) {
  return vsliq_n_s32(vsliq_n_s32(a, b, 8), vsliq_n_s32(c, d, 8), 16);
}
// The halves of a and b are taken apart once for many products: the compiler sees that.
inline I DotPairs(I acc, I a, I b) {
  const I low = vmlal_s16(acc, vmovn_s32(a), vmovn_s32(b));
  return vmlal_s16(low, vshrn_n_s32(a, 16), vshrn_n_s32(b, 16));
}

// Unsigned bytes x become signed ones x - 128, and 128 sum(w) mends the sum.
inline int8x16_t Flip(uint8x16_t bytes) {
  return vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(0x80)));
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
inline I DotQuads(I acc, I x, I w) {
  return vusdotq_s32(acc, vreinterpretq_u8_s32(x), vreinterpretq_s8_s32(w));
}
#elif defined(__ARM_FEATURE_DOTPROD)
inline I DotQuads(I acc, I x, I w) {
  const int8x16_t factor = vreinterpretq_s8_s32(w);
  const I mend = vshlq_n_s32(vdotq_s32(ZeroInt(), factor, vdupq_n_s8(1)), 7);  // once per w
  return vdotq_s32(vaddq_s32(acc, mend), Flip(vreinterpretq_u8_s32(x)), factor);
}
#else
// Two products of signed bytes fit into a word as long as no weight is -128, and none is.
inline I DotQuads(I acc, I x, I w) {
  const int8x16_t factor = vreinterpretq_s8_s32(w), flipped = Flip(vreinterpretq_u8_s32(x));
  const I mend = vshlq_n_s32(vpaddlq_s16(vpaddlq_s8(factor)), 7);  // once per w
  const int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(flipped), vget_low_s8(factor)),
                                     vmull_high_s8(flipped, factor));
  return vpadalq_s16(vaddq_s32(acc, mend), pairs);
}
#endif

inline void StoreWords(int16_t* p, const I* v) {
  vst1q_s16(p, vcombine_s16(vqmovn_s32(v[0]), vqmovn_s32(v[1])));
  vst1q_s16(p + 8, vcombine_s16(vqmovn_s32(v[2]), vqmovn_s32(v[3])));
}

inline void Transpose4(const int32_t* from, size_t from_stride, int32_t* to, size_t to_stride) {
  const I r0 = vld1q_s32(from), r1 = vld1q_s32(from + from_stride);
  const I r2 = vld1q_s32(from + 2 * from_stride), r3 = vld1q_s32(from + 3 * from_stride);
  const I even_low = vzip1q_s32(r0, r2), even_high = vzip2q_s32(r0, r2);
  const I odd_low = vzip1q_s32(r1, r3), odd_high = vzip2q_s32(r1, r3);
  vst1q_s32(to, vzip1q_s32(even_low, odd_low));
  vst1q_s32(to + to_stride, vzip2q_s32(even_low, odd_low));
  vst1q_s32(to + 2 * to_stride, vzip1q_s32(even_high, odd_high));
  vst1q_s32(to + 3 * to_stride, vzip2q_s32(even_high, odd_high));
}

inline void Transpose16(const void* source, size_t source_stride, void* target,
                        size_t target_stride) {
  const int32_t* from = static_cast<const int32_t*>(source);
  int32_t* to = static_cast<int32_t*>(target);
  for (size_t i = 0; i < 16; i += 4) {
    for (size_t j = 0; j < 16; j += 4) {
      Transpose4(from + i * source_stride + j, source_stride, to + j * target_stride + i,
                 target_stride);
    }
  }
}

// Byte rows. Registers of 16 bytes need no other order than that of the tokens. The bytes are
// kept as the products want them: flipped, but where those take unsigned ones.
constexpr size_t kLargestSubTile = 32;

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

template <size_t kTokens>
struct RowSum {
  static constexpr size_t kParts = kTokens / 16;
  I sum[kParts][4] = {};
  I weights = ZeroInt();  // the sum of the weights in each lane

  static I Dot(I acc, uint8x16_t x, int8x16_t w) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    return vusdotq_s32(acc, x, w);
#else
    return vdotq_s32(acc, vreinterpretq_s8_u8(x), w);
#endif
  }

  void Add(const uint8_t* p0, const uint8_t* p1, const uint8_t* p2, const uint8_t* p3,
           uint32_t weight) {
    const int8x16_t w = vreinterpretq_s8_u32(vdupq_n_u32(weight));
#if !defined(__ARM_FEATURE_MATMUL_INT8)
    weights = vdotq_s32(weights, w, vdupq_n_s8(1));
#endif
    for (size_t i = 0; i < kParts; ++i) {
      const uint8x16_t r0 = vld1q_u8(p0 + 16 * i), r1 = vld1q_u8(p1 + 16 * i);
      const uint8x16_t r2 = vld1q_u8(p2 + 16 * i), r3 = vld1q_u8(p3 + 16 * i);
      const uint16x8_t low01 = vreinterpretq_u16_u8(vzip1q_u8(r0, r1));
      const uint16x8_t high01 = vreinterpretq_u16_u8(vzip2q_u8(r0, r1));
      const uint16x8_t low23 = vreinterpretq_u16_u8(vzip1q_u8(r2, r3));
      const uint16x8_t high23 = vreinterpretq_u16_u8(vzip2q_u8(r2, r3));
      sum[i][0] = Dot(sum[i][0], vreinterpretq_u8_u16(vzip1q_u16(low01, low23)), w);
      sum[i][1] = Dot(sum[i][1], vreinterpretq_u8_u16(vzip2q_u16(low01, low23)), w);
      sum[i][2] = Dot(sum[i][2], vreinterpretq_u8_u16(vzip1q_u16(high01, high23)), w);
      sum[i][3] = Dot(sum[i][3], vreinterpretq_u8_u16(vzip2q_u16(high01, high23)), w);
    }
  }
  void Get(F* out) const {
    const I mend = vshlq_n_s32(weights, 7);
    for (size_t i = 0; i < kTokens / 4; ++i) {
      out[i] = ToFloat(vaddq_s32(sum[i / 4][i % 4], mend));
    }
  }
};

#else

// One row after another, without a dot product: two products fit into a word, as above.
template <size_t kTokens>
struct RowSum {
  static constexpr size_t kParts = kTokens / 16;
  I sum[kParts][4] = {};
  int32x2_t weights = vdup_n_s32(0);  // the sum of the weights in each lane

  void Add(const uint8_t* p0, const uint8_t* p1, const uint8_t* p2, const uint8_t* p3,
           uint32_t weight) {
    const int8x8_t w = vreinterpret_s8_u32(vdup_n_u32(weight));
    weights = vpadal_s16(weights, vpaddl_s8(w));
    AddTwo(p0, p1, vdup_lane_s8(w, 0), vdup_lane_s8(w, 1));
    AddTwo(p2, p3, vdup_lane_s8(w, 2), vdup_lane_s8(w, 3));
  }
  void AddTwo(const uint8_t* p0, const uint8_t* p1, int8x8_t w0, int8x8_t w1) {
    for (size_t i = 0; i < kParts; ++i) {
      const int8x16_t r0 = vreinterpretq_s8_u8(vld1q_u8(p0 + 16 * i));
      const int8x16_t r1 = vreinterpretq_s8_u8(vld1q_u8(p1 + 16 * i));
      const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(r0), w0), vget_low_s8(r1), w1);
      const int16x8_t high = vmlal_s8(vmull_s8(vget_high_s8(r0), w0), vget_high_s8(r1), w1);
      sum[i][0] = vaddw_s16(sum[i][0], vget_low_s16(low));
      sum[i][1] = vaddw_high_s16(sum[i][1], low);
      sum[i][2] = vaddw_s16(sum[i][2], vget_low_s16(high));
      sum[i][3] = vaddw_high_s16(sum[i][3], high);
    }
  }
  void Get(F* out) const {
    const I mend = vshlq_n_s32(vcombine_s32(weights, weights), 7);
    for (size_t i = 0; i < kTokens / 4; ++i) {
      out[i] = ToFloat(vaddq_s32(sum[i / 4][i % 4], mend));
    }
  }
};

#endif

template <size_t kTokens>
inline void StoreBytes(const F* v, uint8_t* out) {
  for (size_t i = 0; i < kTokens / 16; ++i, v += 4) {
    const int16x8_t low = vcombine_s16(vqmovn_s32(ToInt(v[0])), vqmovn_s32(ToInt(v[1])));
    const int16x8_t high = vcombine_s16(vqmovn_s32(ToInt(v[2])), vqmovn_s32(ToInt(v[3])));
    const uint8x16_t bytes = vcombine_u8(vqmovun_s16(low), vqmovun_s16(high));
#if defined(__ARM_FEATURE_MATMUL_INT8)
    vst1q_u8(out + 16 * i, bytes);
#else
    vst1q_s8(reinterpret_cast<int8_t*>(out) + 16 * i, Flip(bytes));
#endif
  }
}

}  // namespace
}  // namespace smp
