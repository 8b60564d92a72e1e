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

}  // namespace smp::test
