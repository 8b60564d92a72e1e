// What each kernel reaches on one core of this machine, and what the machine gives at most.
//
//   make kernel-bench
//
// One tile of 64 tokens, random weights; billions of operations a second, a multiplication and an
// addition being two, of weights that are not zero. The best of many runs: it is a ceiling.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cpu.h"
#include "kernels.h"
#include "product.h"
#include "weights.h"

namespace {

using smp::Isa;
using smp::Kernel;

struct alignas(64) Line {
  uint8_t bytes[64];
};

template <typename Fn>
double BestSeconds(Fn fn) {
  using Clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity(), total = 0.0;
  for (int i = 0; i < 1000 && (i < 5 || total < 0.05); ++i) {
    const auto start = Clock::now();
    fn();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

smp::Weights Random(uint32_t rows, uint32_t columns, double density) {
  smp::Weights weights;
  weights.rows = rows;
  weights.columns = columns;
  std::mt19937 random(1);
  weights.row_start.push_back(0);
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t column = 0; column < columns; ++column) {
      if (random() < density * 4294967296.0) {
        weights.column.push_back(static_cast<uint16_t>(column));
        weights.values.push_back(static_cast<float>(random() % 255) - 127.0f);
      }
    }
    weights.row_start.push_back(static_cast<uint32_t>(weights.column.size()));
  }
  return weights;
}

double Gops(const smp::KernelTable& table, Kernel kernel, const smp::Weights& weights) {
  const auto product = smp::Product::Make(weights, kernel);
  std::vector<Line> bytes((weights.columns + 3) / 4 * 4), values(weights.columns * 4);
  std::vector<Line> out(weights.rows * 4);
  for (size_t i = 0; i < bytes.size() * 64; ++i) {
    bytes[i / 64].bytes[i % 64] = static_cast<uint8_t>(i);
  }
  std::vector<float> ones(smp::kMaxWidth, 1.0f);
  const smp::QuantizedTile quantized{bytes.data()->bytes, ones.data(), ones.data()};
  const smp::TileInput input{reinterpret_cast<const float*>(values.data()), quantized, quantized};
  const smp::Epilogue epilogue{nullptr, smp::Activation::kNone, false, nullptr,
                               reinterpret_cast<float*>(out.data())};
  const double seconds =
      BestSeconds([&] { product->Run(table, 0, weights.rows, smp::kMaxWidth, input, epilogue); });
  const double multiplied = static_cast<double>(weights.nonzeros());
  return 2.0 * multiplied * static_cast<double>(smp::kMaxWidth) / seconds * 1e-9;
}

double ReadGigabytes(size_t bytes) {
  std::vector<uint64_t> data(bytes / 8, 1);
  volatile uint64_t sink = 0;
  const double seconds = BestSeconds([&] {
    uint64_t sum[8] = {};
    for (size_t i = 0; i + 8 <= data.size(); i += 8) {
      for (size_t j = 0; j < 8; ++j) sum[j] += data[i + j];
    }
    for (const uint64_t part : sum) sink = sink + part;
  });
  return static_cast<double>(bytes) / seconds * 1e-9;
}

}  // namespace

int main() {
  std::printf("Reading memory, one core: %.1f GB/s of 256 KiB, %.1f of 8 MiB, %.1f of 128 MiB\n\n",
              ReadGigabytes(size_t{256} << 10), ReadGigabytes(size_t{8} << 20),
              ReadGigabytes(size_t{128} << 20));
  std::printf("| kernel | rows x columns | density | GOPS | dense-equivalent GOPS |\n");
  std::printf("| --- | --- | ---: | ---: | ---: |\n");
  const struct {
    uint32_t rows, columns;
  } shapes[] = {{768, 64}, {768, 768}, {3072, 768}, {768, 3072}};
  for (const Isa isa : smp::kAllIsas) {
    if (!smp::Supported(isa) || isa == Isa::kScalar) continue;
    const smp::KernelTable& table = smp::Kernels(isa);
    for (const Kernel kernel :
         {Kernel::kSparseInt8, Kernel::kDenseInt8, Kernel::kSparseFp32, Kernel::kDenseFp32}) {
      const bool dense = kernel == Kernel::kDenseInt8 || kernel == Kernel::kDenseFp32;
      for (const auto& shape : shapes) {
        for (const double density : {1.0, 0.5, 0.1, 0.03}) {
          if (dense != (density == 1.0)) continue;
          const double gops = Gops(table, kernel, Random(shape.rows, shape.columns, density));
          std::printf("| %s %s | %u x %u | %g | %.0f | %.0f |\n", smp::Name(isa), smp::Name(kernel),
                      shape.rows, shape.columns, density, gops, gops / density);
        }
      }
    }
  }
  return 0;
}
