#include "product.h"

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "blob.h"
#include "cases.h"
#include "checks.h"
#include "cpu.h"
#include "kernels.h"
#include "tests.h"

namespace smp::test {

// Sums of products are exact on every instruction set, also of the largest bytes and weights.
void TestIntegerSums(Isa isa) {
  const KernelTable& table = Kernels(isa);
  constexpr uint32_t kRows = 11, kColumns = 3070;
  Matrix matrix{kRows, kColumns, std::vector<float>(size_t{kRows} * kColumns, 0.0f)};
  std::mt19937 random(5);
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t k = 0; k < kColumns; ++k) {
      const float any = static_cast<float>(random() % 255) - 127.0f;
      const float weights[] = {127.0f, -127.0f, random() % 8 == 0 ? any : 0.0f, any};
      matrix.values[row * kColumns + k] = weights[row % 4];
    }
    matrix.values[row * kColumns] = 127.0f;  // so that the row's scale is 1
  }
  const auto weights = MustDecode(Encode(matrix, kInt8, kBitmap));
  struct alignas(64) Line {
    float values[16];
  };
  for (const size_t width : {16, 32, 64}) {
    std::vector<Line> values(kColumns * width / 16), out(kRows * width / 16);
    std::vector<Line> bytes((kColumns + 3) / 4 * width / 16);
    float* x = values.data()->values;
    for (size_t i = 0; i < kColumns * width; ++i) {
      const size_t token = i % width;
      x[i] = token == 3 ? 255.0f : token == width - 1 ? 0.0f : static_cast<float>(random() % 256);
    }
    const std::vector<float> ones(width, 1.0f), zeros(width, 0.0f);
    for (const Kernel kernel : {Kernel::kSparseInt8, Kernel::kDenseInt8}) {
      const auto quantize =
          kernel == Kernel::kSparseInt8 ? table.quantize_rows : table.quantize_quads;
      uint8_t* to = reinterpret_cast<uint8_t*>(bytes.data());
      quantize(x, kColumns, width, ones.data(), zeros.data(), to);
      const QuantizedTile tile{to, ones.data(), zeros.data()};
      const Epilogue epilogue{nullptr, Activation::kNone, false, nullptr, out.data()->values};
      Product::Make(*weights, kernel)->Run(table, 0, kRows, width, {x, tile, tile}, epilogue);
      for (size_t i = 0; i < kRows * width; ++i) {
        int32_t sum = 0;
        for (size_t k = 0; k < kColumns; ++k) {
          sum += static_cast<int32_t>(x[k * width + i % width]) *
                 static_cast<int32_t>(matrix.at(i / width, k));
        }
        EXPECT(out.data()->values[i] == static_cast<float>(sum),
               std::string(Name(isa)) + ", " + Name(kernel) + ", width " + std::to_string(width));
      }
    }
  }
}

// Features of a row that lie close or far from each other, at both ends and in bursts: the sums are
// those of the dense product, whichever way the groups are stored.
void TestGroups(Isa isa) {
  const KernelTable& table = Kernels(isa);
  constexpr uint32_t kColumns = 1300;
  const std::vector<std::vector<size_t>> rows = {
      {},
      {0},
      {kColumns - 1},
      {0, kColumns - 1},
      {254, 255, 256, 510, 511, 512},
      {255, 510, 765, 1020, 1275},
      {256, 512, 768, 1024, 1280},
      {0, 1, 2, 3, 4, 700, 701, 702, 703, 704, 1299},
  };
  struct alignas(64) Line {
    float values[16];
  };
  for (const size_t filled : {0, 40}) {  // rows without gaps beside them: close groups pay off
    Matrix matrix{static_cast<uint32_t>(rows.size() + filled), kColumns, {}};
    matrix.values.assign(size_t{matrix.rows} * kColumns, 0.0f);
    for (size_t row = 0; row < matrix.rows; ++row) {
      float* values = matrix.values.data() + row * kColumns;
      if (row < rows.size()) {
        for (const size_t column : rows[row]) values[column] = static_cast<float>(column % 127 + 1);
      } else {
        for (size_t k = row % 3; k < kColumns; k += 3) values[k] = static_cast<float>(k % 127 + 1);
      }
    }
    const auto weights = MustDecode(Encode(matrix, kFp32, kBitmap));
    const auto sparse = Product::Make(*weights, Kernel::kSparseInt8);
    const auto dense = Product::Make(*weights, Kernel::kDenseInt8);
    for (const size_t width : {16, 32, 64}) {
      std::vector<Line> row_bytes(kColumns * width / 64 + 16), quad_bytes(row_bytes.size());
      std::vector<Line> x(kColumns * width / 16), out(matrix.rows * width / 16), expected(out);
      std::mt19937 random(3);
      for (size_t i = 0; i < kColumns * width; ++i) {
        x.data()->values[i] = static_cast<float>(random() % 256);
      }
      const std::vector<float> ones(width, 1.0f), zeros(width, 0.0f);
      uint8_t* in_rows = reinterpret_cast<uint8_t*>(row_bytes.data());
      uint8_t* in_quads = reinterpret_cast<uint8_t*>(quad_bytes.data());
      table.quantize_rows(x.data()->values, kColumns, width, ones.data(), zeros.data(), in_rows);
      table.quantize_quads(x.data()->values, kColumns, width, ones.data(), zeros.data(), in_quads);
      const TileInput tile{x.data()->values,
                           {in_rows, ones.data(), zeros.data()},
                           {in_quads, ones.data(), zeros.data()}};
      Epilogue epilogue{nullptr, Activation::kNone, false, nullptr, out.data()->values};
      sparse->Run(table, 0, matrix.rows, width, tile, epilogue);
      epilogue.out = expected.data()->values;
      dense->Run(table, 0, matrix.rows, width, tile, epilogue);
      for (size_t i = 0; i < matrix.rows * width; ++i) {
        EXPECT(out.data()->values[i] == expected.data()->values[i],
               std::string(Name(isa)) + ", row " + std::to_string(i / width) + ", width " +
                   std::to_string(width));
      }
    }
  }
}

}  // namespace smp::test
