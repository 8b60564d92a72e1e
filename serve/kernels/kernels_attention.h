// Attention: int8 scores with int16 values, and fp32.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "kernels_math.h"

namespace smp {
namespace {

// Words [count][16 tokens] to `count` words of each of 16 token rows, `stride` words apart.
inline void StoreTransposed(const int32_t* words, size_t count, char* rows, size_t stride) {
  alignas(64) int32_t in[16 * 16], out[16 * 16];
  for (size_t first = 0; first < count; first += 16) {
    const size_t here = std::min<size_t>(16, count - first);
    if (here == 16) {
      Transpose16(words + 16 * first, 16, rows + 4 * first, stride);
      continue;
    }
    std::memset(in, 0, sizeof in);
    std::memcpy(in, words + 16 * first, here * 16 * 4);
    Transpose16(in, 16, out, 16);
    for (size_t t = 0; t < 16; ++t) {
      std::memcpy(rows + 4 * (t * stride + first), out + 16 * t, here * 4);
    }
  }
}

// Per-token scale of 16 columns of a head: value = integer * scale, integer at most `limit`. NaN
// has the largest bits of all magnitudes, so that it comes through.
inline void TokenScale(const float* x, size_t head_size, size_t width, float limit, F* inverse,
                       float* scale) {
  for (size_t i = 0; i < kPerBlock; ++i) {
    I largest = BitsOf(Set1(1e-30f));
    for (size_t d = 0; d < head_size; ++d) {
      largest = MaxInt(BitsOf(Abs(Load(x + d * width + i * kLanes))), largest);
    }
    inverse[i] = Div(Set1(limit), FromBits(largest));
    Store(scale + i * kLanes, Div(FromBits(largest), Set1(limit)));
  }
}

// Rows d to d + 3 of some columns as bytes of q + 128, q from -127 to 127.
inline I ByteQuad(const float* x, size_t d, size_t head_size, size_t width, F inverse) {
  I byte[4];
  for (size_t i = 0; i < 4; ++i) {
    const I q = d + i < head_size ? ToInt(Mul(Load(x + (d + i) * width), inverse)) : ZeroInt();
    byte[i] = AndInt(AddInt(q, SetInt(128)), SetInt(255));
  }
  return QuadBytes(byte[0], byte[1], byte[2], byte[3]);
}

void StoreQueryInt8(const float* x, size_t head_size, size_t width, size_t position, void* query,
                    float* query_scale) {
  const size_t quads = (head_size + 3) / 4;
  for (size_t column = 0; column < width; column += 16) {
    F inverse[kPerBlock];
    TokenScale(x + column, head_size, width, 127.0f, inverse, query_scale + position + column);
    int32_t* out = static_cast<int32_t*>(query) + (position + column) * quads;
    for (size_t p = 0; p < quads; ++p) {
      for (size_t i = 0; i < kPerBlock; ++i) {
        StoreInt(out + 16 * p + i * kLanes,
                 ByteQuad(x + column + i * kLanes, 4 * p, head_size, width, inverse[i]));
      }
    }
  }
}

void StoreKeyInt8(const float* x, size_t head_size, size_t width, size_t position, void* key,
                  float* key_scale, float* key_offset) {
  constexpr size_t kStep = 32;  // words of a key at a time
  const size_t quads = (head_size + 3) / 4;
  alignas(64) int32_t words[kStep * 16];
  for (size_t column = 0; column < width; column += 16) {
    F inverse[kPerBlock];
    I sum[kPerBlock];
    for (I& v : sum) v = ZeroInt();
    TokenScale(x + column, head_size, width, 127.0f, inverse, key_scale + position + column);
    char* rows = static_cast<char*>(key) + (position + column) * quads * 4;
    for (size_t first = 0; first < quads; first += kStep) {
      const size_t here = std::min(kStep, quads - first);
      for (size_t p = 0; p < here; ++p) {
        for (size_t i = 0; i < kPerBlock; ++i) {
          const I bytes =
              ByteQuad(x + column + i * kLanes, 4 * (first + p), head_size, width, inverse[i]);
          const I quad = XorInt(bytes, SetInt(0x80808080u));     // signed
          sum[i] = DotQuads(sum[i], SetInt(0x80808080u), quad);  // 128 times their sum
          StoreInt(words + 16 * p + i * kLanes, quad);
        }
      }
      StoreTransposed(words, here, rows + 4 * first, quads);
    }
    for (size_t i = 0; i < kPerBlock; ++i) {
      Store(key_offset + position + column + i * kLanes, ToFloat(sum[i]));
    }
  }
}

void StoreValueInt16(const float* x, size_t head_size, size_t width, size_t position, void* value,
                     size_t value_stride, float* value_scale) {
  for (size_t column = 0; column < width; column += 16) {
    F inverse[kPerBlock];
    TokenScale(x + column, head_size, width, 32767.0f, inverse, value_scale + position + column);
    for (size_t d = 0; d < head_size; ++d) {
      I v[kPerBlock];
      for (size_t i = 0; i < kPerBlock; ++i) {
        v[i] = ToInt(Mul(Load(x + d * width + column + i * kLanes), inverse[i]));
      }
      StoreWords(static_cast<int16_t*>(value) + d * value_stride + position + column, v);
    }
  }
}

// Scores of `kKeys` keys for kVectors vectors of queries, scaled; stored key by key.
template <size_t kVectors, size_t kKeys>
inline void ScoresInt8(const AttentionTask& task, size_t key, const F* query_factor, F* largest,
                       float* scores) {
  const size_t quads = (task.head_size + 3) / 4;
  const int32_t* query = static_cast<const int32_t*>(task.query) + task.first_block * 16 * quads;
  const char* row = static_cast<const char*>(task.key) + (task.first_key + key) * quads * 4;
  I sum[kKeys][kVectors];
  for (auto& r : sum) {
    for (I& v : r) v = ZeroInt();
  }
  for (size_t p = 0; p < quads; ++p) {
    I q[kVectors];
    for (size_t i = 0; i < kVectors; ++i) {
      const size_t block = i / kPerBlock, part = i % kPerBlock;
      q[i] = LoadInt(query + (block * quads + p) * 16 + part * kLanes);
    }
    for (size_t k = 0; k < kKeys; ++k) {
      uint32_t word;
      std::memcpy(&word, row + 4 * (k * quads + p), 4);
      const I factor = SetInt(word);
      for (size_t i = 0; i < kVectors; ++i) sum[k][i] = DotQuads(sum[k][i], q[i], factor);
    }
  }
  for (size_t k = 0; k < kKeys; ++k) {
    const F factor = Set1(task.key_scale[task.first_key + key + k]);
    const F offset = Set1(task.key_offset[task.first_key + key + k]);
    for (size_t i = 0; i < kVectors; ++i) {
      const F score = Mul(Sub(ToFloat(sum[k][i]), offset), Mul(query_factor[i], factor));
      largest[i] = Max(score, largest[i]);
      Store(scores + ((key + k) * kVectors + i) * kLanes, score);
    }
  }
}

template <size_t kVectors, size_t kRows>
inline void ValuesInt16(const AttentionTask& task, size_t d, const int32_t* weights,
                        const F* factor, const uint32_t* lanes) {
  const size_t pairs = (task.keys + 1) / 2;
  const int16_t* value =
      static_cast<const int16_t*>(task.value) + d * task.value_stride + task.first_key;
  I sum[kRows][kVectors];
  for (auto& r : sum) {
    for (I& v : r) v = ZeroInt();
  }
  for (size_t p = 0; p < pairs; ++p) {
    I w[kVectors];
    for (size_t i = 0; i < kVectors; ++i) w[i] = LoadInt(weights + (p * kVectors + i) * kLanes);
    for (size_t r = 0; r < kRows; ++r) {
      uint32_t word;
      std::memcpy(&word, value + r * task.value_stride + 2 * p, 4);
      const I pair = SetInt(word);
      for (size_t i = 0; i < kVectors; ++i) sum[r][i] = DotPairs(sum[r][i], w[i], pair);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t i = 0; i < kVectors; ++i) {
      const size_t block = i / kPerBlock, part = i % kPerBlock;
      StoreLanes(task.out[block] + (d + r) * task.out_stride[block] + part * kLanes,
                 Mul(ToFloat(sum[r][i]), factor[i]), lanes[i]);
    }
  }
}

// Which lanes of each vector are this task's queries.
template <size_t kVectors>
inline void QueryLanes(const AttentionTask& task, uint32_t* lanes) {
  for (size_t i = 0; i < kVectors; ++i) {
    lanes[i] = 0;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const size_t position = task.first_block * 16 + i * kLanes + lane;
      if (position >= task.first_query && position < task.first_query + task.queries) {
        lanes[i] |= 1u << lane;
      }
    }
  }
}

template <size_t kBlocks>
void AttentionInt8Blocks(const AttentionTask& task) {
  constexpr size_t kVectors = kBlocks * kPerBlock;
  float* scores = task.scratch;
  F query_factor[kVectors], largest[kVectors], total[kVectors], weighted[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    query_factor[i] = Mul(Load(task.query_scale + task.first_block * 16 + i * kLanes),
                          Set1(task.scale * 1.44269504f));  // for powers of 2
    largest[i] = Set1(-3.0e38f);
    total[i] = Set1(0.0f);
    weighted[i] = Set1(1e-30f);
  }
  size_t key = 0;
  for (; key + 4 <= task.keys; key += 4) {
    ScoresInt8<kVectors, 4>(task, key, query_factor, largest, scores);
  }
  for (; key < task.keys; ++key) {
    ScoresInt8<kVectors, 1>(task, key, query_factor, largest, scores);
  }
  // The values' scales go into the weights, and these are scaled to sum up to 32767 at most: no
  // sum of products can overflow.
  for (key = 0; key < task.keys; ++key) {
    const F scale = Set1(task.value_scale[task.first_key + key]);
    for (size_t i = 0; i < kVectors; ++i) {
      float* p = scores + (key * kVectors + i) * kLanes;
      const F e = ApproximatePowerOf2(Sub(Load(p), largest[i]));
      const F w = Mul(e, scale);
      total[i] = Add(total[i], e);
      weighted[i] = Add(weighted[i], w);
      Store(p, w);
    }
  }
  F factor[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    factor[i] = Div(weighted[i], Mul(total[i], Set1(32700.0f)));
    weighted[i] = Div(Set1(32700.0f), weighted[i]);
  }
  int32_t* weights = reinterpret_cast<int32_t*>(scores);  // in place: pair p is read before
  for (key = 0; key < task.keys; key += 2) {
    for (size_t i = 0; i < kVectors; ++i) {
      const float* p = scores + (key * kVectors + i) * kLanes;
      const I low = ToInt(Mul(Load(p), weighted[i]));
      const I high =
          key + 1 < task.keys ? ToInt(Mul(Load(p + kVectors * kLanes), weighted[i])) : ZeroInt();
      StoreInt(weights + (key / 2 * kVectors + i) * kLanes, PairWords(low, high));
    }
  }
  uint32_t lanes[kVectors];
  QueryLanes<kVectors>(task, lanes);
  size_t d = 0;
  for (; d + 4 <= task.head_size; d += 4) {
    ValuesInt16<kVectors, 4>(task, d, weights, factor, lanes);
  }
  for (; d < task.head_size; ++d) ValuesInt16<kVectors, 1>(task, d, weights, factor, lanes);
}

void StoreQueryFp32(const float* x, size_t head_size, size_t width, size_t position, void* query,
                    float*) {
  for (size_t column = 0; column < width; column += 16) {
    float* out = static_cast<float*>(query) + (position + column) * head_size;
    for (size_t d = 0; d < head_size; ++d) {
      std::memcpy(out + 16 * d, x + d * width + column, 16 * sizeof(float));
    }
  }
}

void StoreKeyFp32(const float* x, size_t head_size, size_t width, size_t position, void* key,
                  float*, float*) {
  alignas(64) float columns[16 * 16], rows[16 * 16];
  std::memset(columns, 0, sizeof columns);
  for (size_t column = 0; column < width; column += 16) {
    float* out = static_cast<float*>(key) + (position + column) * head_size;
    for (size_t d = 0; d < head_size; d += 16) {
      const size_t here = std::min<size_t>(16, head_size - d);
      for (size_t i = 0; i < here; ++i) {
        std::memcpy(columns + 16 * i, x + (d + i) * width + column, 16 * sizeof(float));
      }
      Transpose16(columns, 16, rows, 16);
      for (size_t t = 0; t < 16; ++t) {
        std::memcpy(out + t * head_size + d, rows + 16 * t, here * sizeof(float));
      }
    }
  }
}

void StoreValueFp32(const float* x, size_t head_size, size_t width, size_t position, void* value,
                    size_t value_stride, float*) {
  for (size_t d = 0; d < head_size; ++d) {
    std::memcpy(static_cast<float*>(value) + d * value_stride + position, x + d * width,
                width * sizeof(float));
  }
}

template <size_t kVectors, size_t kKeys>
inline void ScoresFp32(const AttentionTask& task, size_t key, F* largest, float* scores) {
  const float* query =
      static_cast<const float*>(task.query) + task.first_block * 16 * task.head_size;
  const float* row = static_cast<const float*>(task.key) + (task.first_key + key) * task.head_size;
  F sum[kKeys][kVectors];
  for (auto& r : sum) {
    for (F& v : r) v = Set1(0.0f);
  }
  for (size_t d = 0; d < task.head_size; ++d) {
    F q[kVectors];
    for (size_t i = 0; i < kVectors; ++i) {
      const size_t block = i / kPerBlock, part = i % kPerBlock;
      q[i] = Load(query + (block * task.head_size + d) * 16 + part * kLanes);
    }
    for (size_t k = 0; k < kKeys; ++k) {
      const F factor = Set1(row[k * task.head_size + d]);
      for (size_t i = 0; i < kVectors; ++i) sum[k][i] = Fma(q[i], factor, sum[k][i]);
    }
  }
  const F scale = Set1(task.scale);
  for (size_t k = 0; k < kKeys; ++k) {
    for (size_t i = 0; i < kVectors; ++i) {
      const F score = Mul(sum[k][i], scale);
      largest[i] = Max(score, largest[i]);
      Store(scores + ((key + k) * kVectors + i) * kLanes, score);
    }
  }
}

template <size_t kVectors, size_t kRows>
inline void ValuesFp32(const AttentionTask& task, size_t d, const float* weights, const F* factor,
                       const uint32_t* lanes) {
  const float* value =
      static_cast<const float*>(task.value) + d * task.value_stride + task.first_key;
  F sum[kRows][kVectors];
  for (auto& r : sum) {
    for (F& v : r) v = Set1(0.0f);
  }
  for (size_t k = 0; k < task.keys; ++k) {
    F w[kVectors];
    for (size_t i = 0; i < kVectors; ++i) w[i] = Load(weights + (k * kVectors + i) * kLanes);
    for (size_t r = 0; r < kRows; ++r) {
      const F v = Set1(value[r * task.value_stride + k]);
      for (size_t i = 0; i < kVectors; ++i) sum[r][i] = Fma(w[i], v, sum[r][i]);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t i = 0; i < kVectors; ++i) {
      const size_t block = i / kPerBlock, part = i % kPerBlock;
      StoreLanes(task.out[block] + (d + r) * task.out_stride[block] + part * kLanes,
                 Mul(sum[r][i], factor[i]), lanes[i]);
    }
  }
}

template <size_t kBlocks>
void AttentionFp32Blocks(const AttentionTask& task) {
  constexpr size_t kVectors = kBlocks * kPerBlock;
  float* scores = task.scratch;
  F largest[kVectors], total[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    largest[i] = Set1(-3.0e38f);
    total[i] = Set1(0.0f);
  }
  size_t key = 0;
  for (; key + 4 <= task.keys; key += 4) {
    ScoresFp32<kVectors, 4>(task, key, largest, scores);
  }
  for (; key < task.keys; ++key) ScoresFp32<kVectors, 1>(task, key, largest, scores);
  for (key = 0; key < task.keys; ++key) {
    for (size_t i = 0; i < kVectors; ++i) {
      float* p = scores + (key * kVectors + i) * kLanes;
      const F e = Exp(Sub(Load(p), largest[i]));
      total[i] = Add(total[i], e);
      Store(p, e);
    }
  }
  for (size_t i = 0; i < kVectors; ++i) total[i] = Div(Set1(1.0f), total[i]);
  uint32_t lanes[kVectors];
  QueryLanes<kVectors>(task, lanes);
  size_t d = 0;
  for (; d + 4 <= task.head_size; d += 4) {
    ValuesFp32<kVectors, 4>(task, d, scores, total, lanes);
  }
  for (; d < task.head_size; ++d) ValuesFp32<kVectors, 1>(task, d, scores, total, lanes);
}

// A task of up to four blocks in steps of what the registers hold.
template <void (*kWide)(const AttentionTask&), void (*kNarrow)(const AttentionTask&)>
void RunAttention(const AttentionTask& task) {
  AttentionTask part = task;
  size_t block = 0;
  for (; block < task.blocks; block += part.blocks) {
    part.blocks = task.blocks - block >= kAttentionBlocks ? kAttentionBlocks : 1;
    part.first_block = task.first_block + block;
    for (size_t i = 0; i < part.blocks; ++i) {
      part.out[i] = task.out[block + i];
      part.out_stride[i] = task.out_stride[block + i];
    }
    (part.blocks == kAttentionBlocks ? kWide : kNarrow)(part);
  }
}

}  // namespace
}  // namespace smp
