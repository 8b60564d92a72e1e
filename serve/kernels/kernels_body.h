// The kernels, written once over the vectors of one instruction set (vec_*.h, included first).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels.h"

namespace smp {
namespace {

constexpr size_t kPerBlock = 16 / kLanes;  // vectors of a block of 16 tokens

// exp to 2 ulp; 0 stays above the smallest normal number, NaN stays NaN.
inline F Exp(F x) {
  x = Min(Set1(88.0f), Max(Set1(-87.0f), x));
  const F n = Round(Mul(x, Set1(1.44269504088896341f)));
  // ln 2 in two parts, the first exact in few bits
  const F r = Fma(n, Set1(2.12194440e-4f), Fma(n, Set1(-0.693359375f), x));
  F p = Set1(1.9875691500e-4f);
  p = Fma(p, r, Set1(1.3981999507e-3f));
  p = Fma(p, r, Set1(8.3334519073e-3f));
  p = Fma(p, r, Set1(4.1665795894e-2f));
  p = Fma(p, r, Set1(1.6666665459e-1f));
  p = Fma(p, r, Set1(5.0000001201e-1f));
  p = Fma(Mul(r, r), p, Add(r, Set1(1.0f)));
  return ScaleByPowerOf2(p, n);
}

// 2 to the power of x to 8e-5: a polynomial for the fraction, fitted to the least relative error.
inline F ApproximatePowerOf2(F x) {
  F whole;
  const F r = Fraction(Max(Set1(-126.0f), x), &whole);
  F p = Set1(0.0780244916677475f);
  p = Fma(p, r, Set1(0.22606757283210754f));
  p = Fma(p, r, Set1(0.6958332061767578f));
  p = Fma(p, r, Set1(0.9999252557754517f));
  return ScaleByPowerOf2(p, whole);
}

// 1 / (1 + exp(-x))
inline F Sigmoid(F x) {  // of -87 and less, 1e-38
  return Div(Set1(1.0f), Add(Set1(1.0f), Exp(Sub(Set1(0.0f), x))));
}

// x times the normal distribution function. Abramowitz and Stegun 7.1.26: 1.5e-7 absolute.
inline F Gelu(F x) {
  const F z = Mul(Abs(x), Set1(0.70710678118654752f));
  const F t = Div(Set1(1.0f), Fma(z, Set1(0.3275911f), Set1(1.0f)));
  F p = Set1(1.061405429f);
  p = Fma(p, t, Set1(-1.453152027f));
  p = Fma(p, t, Set1(1.421413741f));
  p = Fma(p, t, Set1(-0.284496736f));
  p = Fma(p, t, Set1(0.254829592f));
  const F upper = Mul(Mul(Mul(p, t), Exp(Sub(Set1(0.0f), Mul(z, z)))), Set1(0.5f));
  return Mul(x, Select(x, Sub(Set1(1.0f), upper), upper));
}

// The same to 9e-5 for |x| < 3.7, and to 1e-4 |x| beyond: an odd polynomial, fitted to the least
// largest error of the product.
inline F ApproximateGelu(F x) {
  const F c = Min(Set1(3.7f), Max(Set1(-3.7f), x));
  const F u = Mul(c, c);
  F p = Set1(3.4785774261081315e-08f);
  p = Fma(p, u, Set1(-2.1584371552307857e-06f));
  p = Fma(p, u, Set1(5.8095334679819643e-05f));
  p = Fma(p, u, Set1(-0.0009035803959704936f));
  p = Fma(p, u, Set1(0.009167900308966637f));
  p = Fma(p, u, Set1(-0.06536426395177841f));
  p = Fma(p, u, Set1(0.3983997702598572f));
  return Mul(x, Fma(c, p, Set1(0.5f)));
}

inline F Activate(F x, Activation activation, bool approximate) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return approximate ? ApproximateGelu(x) : Gelu(x);
    case Activation::kGeluTanh: {  // x sigmoid(2 u), u the argument of the tanh
      const F cubic = Mul(Mul(x, x), x);
      return Mul(x, Sigmoid(Mul(Set1(1.5957691216f), Fma(cubic, Set1(0.044715f), x))));
    }
    case Activation::kRelu:
      return Max(Set1(0.0f), x);
    case Activation::kTanh:
      return Fma(Sigmoid(Mul(Set1(2.0f), x)), Set1(2.0f), Set1(-1.0f));
    case Activation::kSilu:
      return Mul(x, Sigmoid(x));
  }
  return x;
}

// Activation, residual, store: `kCount` vectors of one row from `column` on. Bias is in already.
template <size_t kCount>
inline void Finish(F* v, const Epilogue& e, size_t row, size_t width, size_t column) {
  if (e.activation != Activation::kNone) {
    for (size_t i = 0; i < kCount; ++i) v[i] = Activate(v[i], e.activation, e.approximate);
  }
  const size_t at = row * width + column;
  if (e.residual != nullptr) {
    for (size_t i = 0; i < kCount; ++i) v[i] = Add(v[i], Load(e.residual + at + i * kLanes));
  }
  for (size_t i = 0; i < kCount; ++i) Store(e.out + at + i * kLanes, v[i]);
}

// Integer sums of one row to floats with bias: sum scale[t] ws - offset[t] ws sum(w) + bias.
template <size_t kCount>
inline void Rescale(F* v, const QuantizedTile& x, float weight_scale, float weight_sum, float bias,
                    size_t column) {
  const F ws = Set1(weight_scale), sum = Set1(-weight_sum), b = Set1(bias);
  for (size_t i = 0; i < kCount; ++i) {
    const size_t c = column + i * kLanes;
    v[i] = Fma(Load(x.offset + c), sum, Fma(v[i], Mul(Load(x.scale + c), ws), b));
  }
}

// ---- int8 ----

template <size_t kWidth>
void SparseInt8Rows(const SparseInt8& w, size_t row0, size_t row1, const QuantizedTile& x,
                    const Epilogue& e) {
  constexpr size_t kSub = kWidth < kLargestSubTile ? kWidth : kLargestSubTile;
  constexpr size_t kVectors = kSub / kLanes;
  for (size_t row = row0; row < row1; ++row) {
    const size_t end = w.group_start[row + 1];
    const float bias = e.bias != nullptr ? e.bias[row] : 0.0f;
    for (size_t column = 0; column < kWidth; column += kSub) {
      const uint8_t* bytes = x.bytes + column;
      RowSum<kSub> sum;
      for (size_t group = w.group_start[row]; group < end; ++group) {
        const uint16_t* index = w.index.data() + 4 * group;
        __builtin_prefetch(index + 512);  // read once a tile, from far away
        sum.Add(bytes + kWidth * index[0], bytes + kWidth * index[1], bytes + kWidth * index[2],
                bytes + kWidth * index[3], w.weight[group]);
      }
      F v[kVectors];
      sum.Get(v);
      Rescale<kVectors>(v, x, w.scale[row], w.sum[row], bias, column);
      Finish<kVectors>(v, e, row, kWidth, column);
    }
  }
}

void SparseInt8Product(const SparseInt8& w, size_t row0, size_t row1, size_t width,
                       const QuantizedTile& x, const Epilogue& e) {
  if (width == 64) return SparseInt8Rows<64>(w, row0, row1, x, e);
  if (width == 32) return SparseInt8Rows<32>(w, row0, row1, x, e);
  SparseInt8Rows<16>(w, row0, row1, x, e);
}

template <size_t kVectors>
void DenseInt8Block(const DenseInt8& w, size_t block, size_t row0, size_t row1, size_t width,
                    const QuantizedTile& x, const Epilogue& e, size_t column) {
  constexpr size_t kRows = DenseInt8::kRows;
  const size_t quads = (w.columns + 3) / 4;
  const uint32_t* weight = w.weight.data() + block * quads * kRows;
  const uint8_t* bytes = x.bytes + 4 * column;
  I sum[kRows][kVectors];
  for (auto& row : sum) {
    for (I& v : row) v = ZeroInt();
  }
  for (size_t quad = 0; quad < quads; ++quad) {
    I in[kVectors];
    for (size_t i = 0; i < kVectors; ++i) in[i] = LoadInt(bytes + 4 * i * kLanes);
    for (size_t r = 0; r < kRows; ++r) {
      const I factor = SetInt(weight[r]);
      for (size_t i = 0; i < kVectors; ++i) sum[r][i] = DotQuads(sum[r][i], in[i], factor);
    }
    weight += kRows;
    bytes += 4 * width;
  }
  for (size_t r = 0; r < kRows; ++r) {
    const size_t row = block * kRows + r;
    if (row < row0 || row >= row1) continue;
    F v[kVectors];
    for (size_t i = 0; i < kVectors; ++i) v[i] = ToFloat(sum[r][i]);
    Rescale<kVectors>(v, x, w.scale[row], w.sum[row], e.bias != nullptr ? e.bias[row] : 0.0f,
                      column);
    Finish<kVectors>(v, e, row, width, column);
  }
}

void DenseInt8Product(const DenseInt8& w, size_t row0, size_t row1, size_t width,
                      const QuantizedTile& x, const Epilogue& e) {
  constexpr size_t kStep = kDenseVectors * kLanes;
  for (size_t block = row0 / DenseInt8::kRows; block * DenseInt8::kRows < row1; ++block) {
    size_t column = 0;
    for (; column + kStep <= width; column += kStep) {
      DenseInt8Block<kDenseVectors>(w, block, row0, row1, width, x, e, column);
    }
    for (; column < width; column += kLanes)
      DenseInt8Block<1>(w, block, row0, row1, width, x, e, column);
  }
}

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

// ---- fp32 ----

template <size_t kVectors>
void SparseFp32Columns(const SparseFp32& w, size_t row0, size_t row1, size_t width, const float* x,
                       const Epilogue& e, size_t column) {
  const size_t blocks = (w.columns + SparseFp32::kBlock - 1) / SparseFp32::kBlock;
  for (size_t block = 0; block < blocks; ++block) {
    const float* in = x + block * SparseFp32::kBlock * width + column;
    const uint32_t* start = w.start.data() + block * w.rows;
    const bool last = block + 1 == blocks;
    for (size_t row = row0; row < row1; ++row) {
      float* partial = e.out + row * width + column;
      F sum[kVectors], other[kVectors];
      for (size_t i = 0; i < kVectors; ++i) {
        sum[i] =
            block == 0 ? Set1(e.bias != nullptr ? e.bias[row] : 0.0f) : Load(partial + i * kLanes);
        other[i] = Set1(0.0f);
      }
      size_t at = start[row];
      const size_t end = start[row + 1];
      for (; at + 2 <= end; at += 2) {  // two chains of additions hide their latency
        const F w0 = Set1(w.weight[at]), w1 = Set1(w.weight[at + 1]);
        const float* p0 = in + width * w.index[at];
        const float* p1 = in + width * w.index[at + 1];
        for (size_t i = 0; i < kVectors; ++i) sum[i] = Fma(w0, Load(p0 + i * kLanes), sum[i]);
        for (size_t i = 0; i < kVectors; ++i) other[i] = Fma(w1, Load(p1 + i * kLanes), other[i]);
      }
      if (at < end) {
        const F w0 = Set1(w.weight[at]);
        const float* p0 = in + width * w.index[at];
        for (size_t i = 0; i < kVectors; ++i) sum[i] = Fma(w0, Load(p0 + i * kLanes), sum[i]);
      }
      for (size_t i = 0; i < kVectors; ++i) sum[i] = Add(sum[i], other[i]);
      if (last) {
        Finish<kVectors>(sum, e, row, width, column);
      } else {
        for (size_t i = 0; i < kVectors; ++i) Store(partial + i * kLanes, sum[i]);
      }
    }
  }
}

void SparseFp32Product(const SparseFp32& w, size_t row0, size_t row1, size_t width, const float* x,
                       const Epilogue& e) {
  size_t column = 0;
  for (; column + 4 * kLanes <= width; column += 4 * kLanes) {
    SparseFp32Columns<4>(w, row0, row1, width, x, e, column);
  }
  for (; column + 2 * kLanes <= width; column += 2 * kLanes) {
    SparseFp32Columns<2>(w, row0, row1, width, x, e, column);
  }
  for (; column < width; column += kLanes) {
    SparseFp32Columns<1>(w, row0, row1, width, x, e, column);
  }
}

template <size_t kVectors>
void DenseFp32Block(const DenseFp32& w, size_t block, size_t row0, size_t row1, size_t width,
                    const float* x, const Epilogue& e, size_t column) {
  constexpr size_t kRows = DenseFp32::kRows;
  const float* weight = w.weight.data() + block * w.columns * kRows;
  const float* in = x + column;
  F sum[kRows][kVectors];
  for (auto& row : sum) {
    for (F& v : row) v = Set1(0.0f);
  }
  for (size_t f = 0; f < w.columns; ++f) {
    F v[kVectors];
    for (size_t i = 0; i < kVectors; ++i) v[i] = Load(in + i * kLanes);
    for (size_t r = 0; r < kRows; ++r) {
      const F factor = Set1(weight[r]);
      for (size_t i = 0; i < kVectors; ++i) sum[r][i] = Fma(factor, v[i], sum[r][i]);
    }
    weight += kRows;
    in += width;
  }
  for (size_t r = 0; r < kRows; ++r) {
    const size_t row = block * kRows + r;
    if (row < row0 || row >= row1) continue;
    if (e.bias != nullptr) {
      for (size_t i = 0; i < kVectors; ++i) sum[r][i] = Add(sum[r][i], Set1(e.bias[row]));
    }
    Finish<kVectors>(sum[r], e, row, width, column);
  }
}

void DenseFp32Product(const DenseFp32& w, size_t row0, size_t row1, size_t width, const float* x,
                      const Epilogue& e) {
  constexpr size_t kStep = kDenseVectors * kLanes;
  for (size_t block = row0 / DenseFp32::kRows; block * DenseFp32::kRows < row1; ++block) {
    size_t column = 0;
    for (; column + kStep <= width; column += kStep) {
      DenseFp32Block<kDenseVectors>(w, block, row0, row1, width, x, e, column);
    }
    for (; column < width; column += kLanes)
      DenseFp32Block<1>(w, block, row0, row1, width, x, e, column);
  }
}

// ---- normalisation and layout ----

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

// ---- attention ----

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

KernelTable MakeTable(Isa isa) {
  KernelTable table{};
  table.isa = isa;
  table.min_max = MinMax;
  table.quantize_parameters = QuantizeParameters;
  table.quantize_rows = QuantizeRows;
  table.quantize_quads = QuantizeQuads;
  table.sparse_int8 = SparseInt8Product;
  table.dense_int8 = DenseInt8Product;
  table.sparse_fp32 = SparseFp32Product;
  table.dense_fp32 = DenseFp32Product;
  table.layer_norm = LayerNorm;
  table.pack = Pack;
  table.unpack = Unpack;
  table.attention_int8 = {
      StoreQueryInt8, StoreKeyInt8, StoreValueInt16,
      RunAttention<AttentionInt8Blocks<kAttentionBlocks>, AttentionInt8Blocks<1>>};
  table.attention_fp32 = {
      StoreQueryFp32, StoreKeyFp32, StoreValueFp32,
      RunAttention<AttentionFp32Blocks<kAttentionBlocks>, AttentionFp32Blocks<1>>};
  return table;
}

}  // namespace
}  // namespace smp
