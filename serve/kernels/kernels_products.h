// Sparse and dense products, int8 and fp32, with what is done to their results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "kernels_math.h"

namespace smp {
namespace {

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

// Each adds one group of four weights after the other to a sum. Groups are read once a tile, from
// far away: 1 KiB is fetched ahead.
template <size_t kWidth>
class CloseGroups {
 public:
  CloseGroups(const SparseInt8& w, size_t group, const uint8_t* bytes)
      : next_(w.close.data() + group), bytes_(bytes) {}

  template <typename Sum>
  void AddNext(Sum* sum) {
    __builtin_prefetch(next_ + 128);
    uint32_t word;
    std::memcpy(&word, next_->step, sizeof word);
    // Measured: shifts are faster where four large vectors are loaded beside, bytes elsewhere.
    const auto step = [&](size_t i) -> size_t {
      return kWidth == 64 ? word >> (8 * i) & 255 : next_->step[i];
    };
    const uint8_t* last = bytes_ + kWidth * step(3);
    sum->Add(bytes_ + kWidth * step(0), bytes_ + kWidth * step(1), bytes_ + kWidth * step(2), last,
             next_->weight);
    bytes_ = last;
    ++next_;
  }

 private:
  const SparseInt8::CloseGroup* next_;
  const uint8_t* bytes_;  // of the last feature
};

template <size_t kWidth>
class FarGroups {
 public:
  FarGroups(const SparseInt8& w, size_t group, const uint8_t* bytes)
      : index_(w.index.data() + 4 * group), weight_(w.weight.data() + group), bytes_(bytes) {}

  template <typename Sum>
  void AddNext(Sum* sum) {
    __builtin_prefetch(index_ + 512);
    sum->Add(bytes_ + kWidth * index_[0], bytes_ + kWidth * index_[1], bytes_ + kWidth * index_[2],
             bytes_ + kWidth * index_[3], *weight_);
    index_ += 4;
    ++weight_;
  }

 private:
  const uint16_t* index_;
  const uint32_t* weight_;
  const uint8_t* bytes_;
};

template <size_t kWidth, typename Groups>
void SparseInt8Rows(const SparseInt8& w, size_t row0, size_t row1, const QuantizedTile& x,
                    const Epilogue& e) {
  constexpr size_t kSub = kWidth < kLargestSubTile ? kWidth : kLargestSubTile;
  constexpr size_t kVectors = kSub / kLanes;
  for (size_t row = row0; row < row1; ++row) {
    const size_t end = w.group_start[row + 1];
    const float bias = e.bias != nullptr ? e.bias[row] : 0.0f;
    for (size_t column = 0; column < kWidth; column += kSub) {
      Groups groups(w, w.group_start[row], x.bytes + column);
      RowSum<kSub> sum;
      for (size_t group = w.group_start[row]; group < end; ++group) groups.AddNext(&sum);
      F v[kVectors];
      sum.Get(v);
      Rescale<kVectors>(v, x, w.scale[row], w.sum[row], bias, column);
      Finish<kVectors>(v, e, row, kWidth, column);
    }
  }
}

template <size_t kWidth>
void SparseInt8Tile(const SparseInt8& w, size_t row0, size_t row1, const QuantizedTile& x,
                    const Epilogue& e) {
  if (!w.close.empty()) return SparseInt8Rows<kWidth, CloseGroups<kWidth>>(w, row0, row1, x, e);
  SparseInt8Rows<kWidth, FarGroups<kWidth>>(w, row0, row1, x, e);
}

void SparseInt8Product(const SparseInt8& w, size_t row0, size_t row1, size_t width,
                       const QuantizedTile& x, const Epilogue& e) {
  if (width == 64) return SparseInt8Tile<64>(w, row0, row1, x, e);
  if (width == 32) return SparseInt8Tile<32>(w, row0, row1, x, e);
  SparseInt8Tile<16>(w, row0, row1, x, e);
}

template <size_t kVectors>
void DenseBlock(const DenseInt8& w, size_t block, size_t row0, size_t row1, size_t width,
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
void DenseBlock(const DenseFp32& w, size_t block, size_t row0, size_t row1, size_t width,
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

template <typename Weights, typename Input>
void DenseProduct(const Weights& w, size_t row0, size_t row1, size_t width, Input x,
                  const Epilogue& e) {
  constexpr size_t kStep = kDenseVectors * kLanes;
  for (size_t block = row0 / Weights::kRows; block * Weights::kRows < row1; ++block) {
    size_t column = 0;
    for (; column + kStep <= width; column += kStep) {
      DenseBlock<kDenseVectors>(w, block, row0, row1, width, x, e, column);
    }
    for (; column < width; column += kLanes) {
      DenseBlock<1>(w, block, row0, row1, width, x, e, column);
    }
  }
}

}  // namespace
}  // namespace smp
