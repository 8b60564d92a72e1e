#include "weights.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "blob.h"
#include "cases.h"
#include "checks.h"
#include "tests.h"

namespace smp::test {
namespace {

void ExpectRefused(const Bytes& blob, const std::string& message) {
  std::string error;
  // A copy of just that size, so that a read beyond it is seen.
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[blob.size()]);
  std::copy(blob.begin(), blob.end(), exact.get());
  const auto weights = DecodeWeights(exact.get(), blob.size(), &error);
  EXPECT(weights == nullptr, message);
  EXPECT(error.find(message) != std::string::npos, error + " instead of " + message);
  EXPECT(error.find('\n') == std::string::npos, error);
}

Matrix Dense(const Weights& weights) {
  Matrix matrix{weights.rows, weights.columns,
                std::vector<float>(size_t{weights.rows} * weights.columns)};
  for (size_t row = 0; row < weights.rows; ++row) {
    for (size_t i = weights.row_start[row]; i < weights.row_start[row + 1]; ++i) {
      matrix.values[row * weights.columns + weights.column[i]] =
          weights.scale.empty() ? weights.values[i]
                                : static_cast<float>(weights.quantized[i]) * weights.scale[row];
    }
  }
  return matrix;
}

Bytes WithNumber(Bytes blob, size_t at, size_t size, uint64_t number) {
  for (size_t i = 0; i < size; ++i) blob[at + i] = static_cast<uint8_t>(number >> (8 * i));
  return blob;
}

}  // namespace

void TestDecodeValid() {
  uint32_t seed = 0;
  for (const Values values : {kFp32, kFp16, kInt8}) {
    for (const Mask mask : {kDense, kBitmap, kGaps}) {
      for (const double density : {0.0, 0.002, 0.1, 0.6, 1.0}) {
        for (const uint32_t rows : {1u, 3u, 40u}) {
          for (const uint32_t columns : {1u, 7u, 64u, 999u}) {
            const Matrix matrix = RandomMatrix(rows, columns, density, ++seed);
            const auto weights = MustDecode(Encode(matrix, values, mask));
            const Matrix expected = values == kInt8 ? Quantized(matrix) : matrix;
            EXPECT(Dense(*weights).values == expected.values, std::to_string(seed));
          }
        }
      }
    }
  }
}

void TestDecodeRefuses() {
  const Matrix matrix = RandomMatrix(6, 50, 0.3, 4);
  for (const Values values : {kFp32, kFp16, kInt8}) {
    for (const Mask mask : {kDense, kBitmap, kGaps}) {
      const Bytes blob = Encode(matrix, values, mask);
      for (size_t size = 0; size < blob.size(); ++size) {
        ExpectRefused(Bytes(blob.begin(), blob.begin() + static_cast<ptrdiff_t>(size)), "");
      }
      Bytes longer = blob;
      longer.push_back(0);
      ExpectRefused(longer, "1 bytes too many at the end");
      // The numbers of the header, one after another: too large, too small, overflowing. Gaps do
      // not say where the matrix ends: it may have more rows and columns of nothing.
      for (const uint64_t number : {0ULL, 1ULL, 5ULL, 51ULL, 60000ULL, 0xffffffffULL}) {
        const bool larger = mask == kGaps && number > 50 && number <= 60000;
        if (!larger) ExpectRefused(WithNumber(blob, 12, 4, number), "");
        if (!larger || values == kInt8) ExpectRefused(WithNumber(blob, 8, 4, number), "");
      }
      for (const uint64_t number :
           {0ULL, 1ULL, 301ULL, 1ULL << 32, 1ULL << 62, 1ULL << 63, ~0ULL, ~0ULL - 63}) {
        ExpectRefused(WithNumber(blob, 16, 8, number), "");
        if (mask != kDense || number != 0) ExpectRefused(WithNumber(blob, 24, 8, number), "");
      }
    }
  }
  const Bytes blob = Encode(matrix, kFp32, kBitmap), gaps = Encode(matrix, kFp32, kGaps);
  const Bytes int8 = Encode(matrix, kInt8, kBitmap);
  ExpectRefused({}, "0 bytes are fewer than the header's 32");
  ExpectRefused(WithNumber(blob, 0, 1, 'X'), "the mark SMPW");
  ExpectRefused(WithNumber(blob, 4, 2, 2), "format version is 2; this library reads version 1");
  ExpectRefused(WithNumber(blob, 4, 2, 0), "format version is 0");
  ExpectRefused(WithNumber(blob, 6, 1, 3), "unknown kind of values 3");
  ExpectRefused(WithNumber(blob, 7, 1, 3), "unknown kind of mask 3");
  ExpectRefused(WithNumber(blob, 8, 4, 0), "0 rows; expected 1 to");
  ExpectRefused(WithNumber(blob, 8, 4, 1u << 25), "33554432 rows; expected 1 to");
  ExpectRefused(WithNumber(blob, 12, 4, 0), "0 columns; expected 1 to 65536");
  ExpectRefused(WithNumber(blob, 12, 4, 65537), "65537 columns; expected 1 to 65536");
  ExpectRefused(WithNumber(blob, 16, 8, 301), "301 non-zeros are too many for 6 x 50");
  ExpectRefused(WithNumber(blob, 24, 8, 37), "a bitmap of 37 bytes; expected 38");
  ExpectRefused(WithNumber(Encode(matrix, kFp32, kDense), 16, 8, 299), "a dense matrix with");
  ExpectRefused(WithNumber(blob, 40, 1, 1), "the padding before the mask bytes is not 0");
  ExpectRefused(WithNumber(blob, 64 + 37, 1, 0xf0), "the mask ");  // behind the last position
  ExpectRefused(WithNumber(blob, 64, 1, blob[64] ^ 1), "the mask has");
  ExpectRefused(WithNumber(gaps, 64, 1, 254), "the mask ");
  ExpectRefused(WithNumber(gaps, 64, 1, gaps[64] + 100), "the mask ");
  const size_t values_at = 128;
  const auto infinite = WithNumber(blob, values_at, 4, 0x7f800000);
  ExpectRefused(infinite, "value 0 is not finite");
  ExpectRefused(WithNumber(blob, values_at + 4, 4, 0x7fc00000), "value 1 is not finite");
  const Bytes half = Encode(matrix, kFp16, kBitmap);
  ExpectRefused(WithNumber(half, values_at + 2, 2, 0xfc00), "value 1 is not finite");
  ExpectRefused(WithNumber(int8, 64, 4, 0x7f800000), "the scale of row 0");
  ExpectRefused(WithNumber(int8, 68, 4, 0xbf800000), "the scale of row 1");
  ExpectRefused(WithNumber(int8, 68, 4, 0x7f7fffff), "the scale of row 1");
  ExpectRefused(WithNumber(int8, 192, 1, 0x80), "value 0 is -128");

  // A gap at the end: position 254 is not there, and 255 positions are all there are.
  Bytes ending = Encode(Matrix{1, 255, std::vector<float>(255, 0.0f)}, kFp32, kGaps);
  ending = WithNumber(ending, 24, 8, 1);
  ending.resize(64);
  ending.push_back(255);
  ExpectRefused(ending, "the mask reaches beyond the last position");
  ExpectRefused(WithNumber(ending, 12, 4, 256), "the mask ends within a gap");
}

}  // namespace smp::test
