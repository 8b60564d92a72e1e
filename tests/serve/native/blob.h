// Writes weights in the "SMPW" encoding, plainly, for the tests of their decoder and the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace smp::test {

enum Values : uint8_t { kFp32 = 0, kFp16 = 1, kInt8 = 2 };
enum Mask : uint8_t { kDense = 0, kBitmap = 1, kGaps = 2 };

using Bytes = std::vector<uint8_t>;

struct Matrix {
  uint32_t rows = 0;
  uint32_t columns = 0;
  std::vector<float> values;  // row-major

  float at(size_t row, size_t column) const { return values[row * columns + column]; }
};

// Multiples of 1/8 up to 15: exact in fp16 as well. One row in five is empty.
inline Matrix RandomMatrix(uint32_t rows, uint32_t columns, double density, uint32_t seed) {
  std::mt19937 random(seed);
  Matrix matrix{rows, columns, std::vector<float>(size_t{rows} * columns, 0.0f)};
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (uint32_t row = 0; row < rows; ++row) {
    const bool empty = rows > 1 && random() % 5 == 0;
    for (uint32_t column = 0; column < columns; ++column) {
      const int eighths = static_cast<int>(random() % 241) - 120;
      if (!empty && uniform(random) < density && eighths != 0) {
        matrix.values[size_t{row} * columns + column] = static_cast<float>(eighths) / 8.0f;
      }
    }
  }
  return matrix;
}

template <typename T>
void Append(Bytes* bytes, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    bytes->push_back(static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i)));
  }
}

inline void AppendFloat(Bytes* bytes, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  Append(bytes, bits);
}

// Normal numbers and zero, exact ones only.
inline uint16_t HalfBits(float value) {
  if (value == 0.0f) return 0;
  int exponent;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // [0.5, 1)
  const auto mantissa = static_cast<uint32_t>(fraction * 2048.0f) & 0x3ffu;
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | ((exponent + 14) << 10) | mantissa);
}

inline float RowScale(const Matrix& matrix, size_t row) {
  float largest = 0.0f;
  for (size_t i = 0; i < matrix.columns; ++i) {
    largest = std::max(largest, std::fabs(matrix.at(row, i)));
  }
  return largest / 127.0f;
}

inline int8_t Rounded(float value, float scale) {
  return scale > 0.0f ? static_cast<int8_t>(std::lround(value / scale)) : int8_t{0};
}

// What is left of a matrix after int8.
inline Matrix Quantized(Matrix matrix) {
  for (size_t row = 0; row < matrix.rows; ++row) {
    const float scale = RowScale(matrix, row);
    for (size_t i = 0; i < matrix.columns; ++i) {
      float& value = matrix.values[row * matrix.columns + i];
      value = static_cast<float>(Rounded(value, scale)) * scale;
    }
  }
  return matrix;
}

inline Bytes Encode(const Matrix& matrix, Values values, Mask mask) {
  std::vector<size_t> positions;
  for (size_t i = 0; i < matrix.values.size(); ++i) {
    if (mask == kDense || matrix.values[i] != 0.0f) positions.push_back(i);
  }
  Bytes mask_bytes;
  if (mask == kBitmap) {
    mask_bytes.resize((matrix.values.size() + 7) / 8);
    for (const size_t position : positions) {
      mask_bytes[position / 8] |= static_cast<uint8_t>(1u << position % 8);
    }
  } else if (mask == kGaps) {
    size_t next = 0;
    for (const size_t position : positions) {
      for (; position - next >= 255; next += 255) mask_bytes.push_back(255);
      mask_bytes.push_back(static_cast<uint8_t>(position - next));
      next = position + 1;
    }
  }
  Bytes scales, stored;
  for (size_t row = 0; values == kInt8 && row < matrix.rows; ++row) {
    AppendFloat(&scales, RowScale(matrix, row));
  }
  for (const size_t position : positions) {
    const float value = matrix.values[position];
    if (values == kFp32) AppendFloat(&stored, value);
    if (values == kFp16) Append(&stored, HalfBits(value));
    if (values == kInt8) {
      stored.push_back(
          static_cast<uint8_t>(Rounded(value, RowScale(matrix, position / matrix.columns))));
    }
  }
  Bytes blob = {'S', 'M', 'P', 'W', 1, 0, values, mask};
  Append(&blob, matrix.rows);
  Append(&blob, matrix.columns);
  Append(&blob, static_cast<uint64_t>(positions.size()));
  Append(&blob, static_cast<uint64_t>(mask_bytes.size()));
  for (const Bytes* section : {&scales, &mask_bytes, &stored}) {
    if (section->empty()) continue;
    blob.resize((blob.size() + 63) / 64 * 64);
    blob.insert(blob.end(), section->begin(), section->end());
  }
  return blob;
}

}  // namespace smp::test
