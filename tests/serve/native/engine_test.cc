// Tests of the engine without ONNX Runtime, made to run under sanitizers: decoding, results on
// every instruction set, many Runs of one object at once. Prints what fails; exit code 1 then.
#include "engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "blob.h"
#include "cpu.h"
#include "hash.h"
#include "kernels.h"
#include "product.h"
#include "registry.h"
#include "tasks.h"
#include "weights.h"

#if defined(__SANITIZE_ADDRESS__)
// Memory that nobody has written is NaN: what reads it shows in the results.
extern "C" const char* __asan_default_options() {
  return "max_malloc_fill_size=1073741824:malloc_fill_byte=255";
}
#endif

namespace {

using namespace smp;
using namespace smp_test;

std::atomic<int> failures{0};

void Report(const char* file, int line, const std::string& what) {
  if (++failures <= 50) std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

#define EXPECT(condition, note)                                                          \
  do {                                                                                   \
    if (!(condition)) Report(__FILE__, __LINE__, #condition " -- " + std::string(note)); \
  } while (false)

// ---- threads

class Threads final : public Parallel {
 public:
  explicit Threads(size_t count) : count_(count) {}
  void For(size_t count, const std::function<void(size_t)>& fn) const override {
    Tasks tasks(fn);
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i; (i = next.fetch_add(1)) < count;) tasks.Run(i);
    };
    std::vector<std::thread> others;
    for (size_t i = 1; i < count_; ++i) others.emplace_back(work);
    work();
    for (std::thread& thread : others) thread.join();
    tasks.Rethrow();
  }

 private:
  size_t count_;
};

void TestTasks() {
  for (const size_t threads : {1, 3}) {
    std::vector<int> seen(1000);
    Threads(threads).For(seen.size(), [&](size_t i) { ++seen[i]; });
    EXPECT(std::count(seen.begin(), seen.end(), 1) == 1000, "each task once");
    std::string caught;
    try {
      Threads(threads).For(100, [](size_t i) {
        if (i % 2 == 1) throw std::runtime_error("odd");
      });
    } catch (const std::runtime_error& e) {
      caught = e.what();
    }
    EXPECT(caught == "odd", caught);
  }
}

// ---- decoding

std::shared_ptr<const Weights> MustDecode(const Bytes& blob) {
  std::string error;
  auto weights = DecodeWeights(blob.data(), blob.size(), &error);
  if (!weights) {
    Report(__FILE__, __LINE__, "does not decode: " + error);
    std::exit(1);
  }
  return weights;
}

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

Bytes WithNumber(Bytes blob, size_t at, size_t size, uint64_t number) {
  for (size_t i = 0; i < size; ++i) blob[at + i] = static_cast<uint8_t>(number >> (8 * i));
  return blob;
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

void TestHash() {
  // Two of the vectors that SipHash's authors publish for 128 bits.
  const uint8_t message[1] = {0};
  const Hash128 none = HashBytes(message, 0), one = HashBytes(message, 1);
  EXPECT(none.low == 0xe6a825ba047f81a3ULL && none.high == 0x930255c71472f66dULL, "empty");
  EXPECT(one.low == 0x44af996bd8c187daULL && one.high == 0x45fc229b11597634ULL, "one byte");
}

// ---- linear layers

std::vector<float> RandomFloats(size_t count, uint32_t seed, float size = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> out(count);
  for (float& value : out) value = normal(random);
  return out;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

struct LinearCase {
  Matrix matrix;
  Compute compute = Compute::kFp32;
  Activation activation = Activation::kNone;
  std::vector<float> bias, gamma, beta;

  std::unique_ptr<Linear> Make() const {
    LinearSpec linear;
    linear.name = "test";
    linear.weights = MustDecode(Encode(matrix, kFp32, kBitmap));
    linear.bias = bias;
    linear.activation = activation;
    linear.compute = compute;
    return Linear::Create(std::move(linear), NormSpec{gamma, beta, 1e-5f});
  }
};

std::vector<float> Run(const Linear& linear, const Matrix& matrix, const std::vector<float>& x,
                       const float* residual, size_t threads) {
  const size_t tokens = x.size() / matrix.columns;
  std::vector<float> y(tokens * matrix.rows, -7.0f);
  linear.Run(x.data(), tokens, residual, y.data(), Threads(threads));
  return y;
}

// Plain and in double; `error` is how far float or int8 arithmetic may be from it.
void ReferenceLinear(const LinearCase& c, const std::vector<float>& x, const float* residual,
                     std::vector<double>* y, std::vector<double>* error) {
  const Matrix& w = c.matrix;
  const size_t tokens = x.size() / w.columns;
  y->assign(tokens * w.rows, 0.0);
  error->assign(tokens * w.rows, 0.0);
  for (size_t t = 0; t < tokens; ++t) {
    const float* in = x.data() + t * w.columns;
    double low = 0.0, high = 0.0;
    for (size_t k = 0; k < w.columns; ++k) {
      low = std::min<double>(low, in[k]);
      high = std::max<double>(high, in[k]);
    }
    // Half a step of a value, half a step of the zero point.
    const double step = c.compute == Compute::kInt8 ? (high - low) / 255.0 : 0.0;
    for (size_t row = 0; row < w.rows; ++row) {
      const double weight_step = c.compute == Compute::kInt8 ? RowScale(w, row) : 0.0;
      double sum = c.bias.empty() ? 0.0 : c.bias[row], slack = 1e-6;
      for (size_t k = 0; k < w.columns; ++k) {
        const double weight = w.at(row, k);
        if (weight == 0.0) continue;
        sum += weight * in[k];
        slack += std::fabs(weight) * (step + 1e-5 * std::fabs(in[k])) +
                 0.501 * weight_step * (std::fabs(in[k]) + step);
      }
      if (c.activation == Activation::kGelu) {
        slack = 1.2 * slack + 2e-4 * std::max(1.0, std::fabs(sum));
        sum *= 0.5 * (1.0 + std::erf(sum / std::sqrt(2.0)));
      }
      if (residual != nullptr) sum += residual[t * w.rows + row];
      (*y)[t * w.rows + row] = sum;
      (*error)[t * w.rows + row] = slack;
    }
    if (c.gamma.empty()) continue;
    double* out = y->data() + t * w.rows;
    double* slack = error->data() + t * w.rows;
    double mean = 0.0, variance = 0.0;
    for (size_t row = 0; row < w.rows; ++row) mean += out[row] / w.rows;
    for (size_t row = 0; row < w.rows; ++row) {
      variance += (out[row] - mean) * (out[row] - mean) / w.rows;
    }
    const double factor = 1.0 / std::sqrt(variance + 1e-5);
    const double worst = *std::max_element(slack, slack + w.rows);
    for (size_t row = 0; row < w.rows; ++row) {
      const double normed = (out[row] - mean) * factor;
      out[row] = normed * c.gamma[row] + c.beta[row];
      slack[row] =
          4.0 * worst * factor * (1.0 + std::fabs(normed)) * std::fabs(c.gamma[row]) + 1e-5;
    }
  }
}

std::string Note(Isa isa, const LinearCase& c, size_t tokens) {
  return std::string(Name(isa)) + ", " + std::to_string(c.matrix.rows) + " x " +
         std::to_string(c.matrix.columns) + ", tokens " + std::to_string(tokens) +
         (c.compute == Compute::kInt8 ? ", int8" : ", fp32");
}

void TestLinear(Isa isa) {
  const size_t shapes[][2] = {{1, 1}, {7, 5}, {16, 16}, {33, 130}, {129, 64}, {97, 260}};
  uint32_t seed = 100;
  for (const auto& shape : shapes) {
    for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
      for (const double density : {0.0, 0.1, 1.0}) {
        LinearCase c;
        c.matrix = RandomMatrix(static_cast<uint32_t>(shape[0]), static_cast<uint32_t>(shape[1]),
                                density, ++seed);
        c.compute = compute;
        const bool full = seed % 2 == 0;
        if (full) {
          c.activation = Activation::kGelu;
          c.bias = RandomFloats(shape[0], seed);
          c.gamma = RandomFloats(shape[0], seed + 1);
          c.beta = RandomFloats(shape[0], seed + 2);
        }
        const auto linear = c.Make();
        for (const size_t tokens : {1, 16, 17, 63, 130}) {
          const auto x = RandomFloats(tokens * shape[1], seed + 3);
          const auto residual = RandomFloats(tokens * shape[0], seed + 4);
          const float* added = full ? residual.data() : nullptr;
          const auto y = Run(*linear, c.matrix, x, added, 1);
          std::vector<double> expected, error;
          ReferenceLinear(c, x, added, &expected, &error);
          for (size_t i = 0; i < y.size(); ++i) {
            if (!(std::fabs(y[i] - expected[i]) <= error[i])) {
              Report(__FILE__, __LINE__,
                     Note(isa, c, tokens) + ": " + std::to_string(y[i]) + " is not " +
                         std::to_string(expected[i]) + " +- " + std::to_string(error[i]));
              break;
            }
          }
          for (const size_t threads : {2, 3}) {
            EXPECT(SameBits(Run(*linear, c.matrix, x, added, threads), y), Note(isa, c, tokens));
          }
        }
      }
    }
  }
}

void TestLinearBadTokens(Isa isa) {
  const float bad_values[] = {std::numeric_limits<float>::quiet_NaN(),
                              std::numeric_limits<float>::infinity(),
                              -std::numeric_limits<float>::infinity()};
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    LinearCase c;
    c.matrix = RandomMatrix(50, 70, 0.2, 8);
    c.compute = compute;
    const auto linear = c.Make();
    const auto x = RandomFloats(90 * 70, 9);
    const auto clean = Run(*linear, c.matrix, x, nullptr, 1);
    for (size_t token : {0, 15, 64, 89}) {
      for (const float bad : bad_values) {
        auto changed = x;
        changed[token * 70 + 33] = bad;
        auto y = Run(*linear, c.matrix, changed, nullptr, 2);
        for (size_t row = 0; row < 50; ++row) {
          float& value = y[token * 50 + row];
          if (c.matrix.at(row, 33) != 0.0f) EXPECT(!std::isfinite(value), Note(isa, c, 90));
          if (compute == Compute::kInt8) EXPECT(std::isnan(value), Note(isa, c, 90));
          value = clean[token * 50 + row];
        }
        EXPECT(SameBits(y, clean), "other tokens: " + Note(isa, c, 90));
      }
    }
  }
}

void TestLinearRefuses() {
  const auto weights = MustDecode(Encode(RandomMatrix(4, 6, 0.5, 1), kFp32, kBitmap));
  const auto refused = [&](std::vector<float> bias, NormSpec norm) {
    LinearSpec spec;
    spec.name = "test";
    spec.weights = weights;
    spec.bias = std::move(bias);
    try {
      Linear::Create(std::move(spec), std::move(norm));
    } catch (const std::invalid_argument& e) {
      return std::string(e.what()).find('\n') == std::string::npos;
    }
    return false;
  };
  EXPECT(refused({1.0f}, {}), "bias");
  EXPECT(refused({}, NormSpec{{1, 1, 1, 1}, {}, 0.1f}), "no beta");
  EXPECT(refused({}, NormSpec{{1, 1, 1}, {1, 1, 1}, 0.1f}), "short gamma");
}

// ---- integers

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

// ---- encoders

struct EncoderCase {
  size_t hidden = 24, intermediate = 40, heads = 3, layers = 2;
  Compute compute = Compute::kFp32;
  bool first = false;
  std::vector<Matrix> matrices;             // query, key, value, output, intermediate, down
  std::vector<std::vector<float>> vectors;  // their biases, then gamma, beta, gamma, beta

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(hidden / heads)); }

  void Fill(double density, uint32_t seed) {
    for (size_t layer = 0; layer < layers; ++layer) {
      for (size_t i = 0; i < 6; ++i) {
        Matrix matrix =
            RandomMatrix(static_cast<uint32_t>(i == 4 ? intermediate : hidden),
                         static_cast<uint32_t>(i == 5 ? intermediate : hidden), density, ++seed);
        for (float& value : matrix.values) value /= 16.0f;
        vectors.push_back(RandomFloats(matrix.rows, ++seed, 0.5f));
        matrices.push_back(std::move(matrix));
      }
      for (size_t i = 0; i < 4; ++i) vectors.push_back(RandomFloats(hidden, ++seed, 0.7f));
    }
  }

  std::unique_ptr<Encoder> Make() const {
    EncoderSpec spec;
    spec.heads = heads;
    spec.scale = scale();
    spec.first_token_only = first;
    for (size_t layer = 0; layer < layers; ++layer) {
      const auto linear = [&](size_t i) {
        LinearSpec out;
        out.name = "test";
        out.weights = MustDecode(Encode(matrices[6 * layer + i], kFp32, kGaps));
        out.bias = vectors[10 * layer + i];
        out.compute = compute;
        if (i == 4) out.activation = Activation::kGelu;
        return out;
      };
      const auto norm = [&](size_t i) {
        return NormSpec{vectors[10 * layer + i], vectors[10 * layer + i + 1], 1e-5f};
      };
      spec.layers.push_back(
          {linear(0), linear(1), linear(2), linear(3), linear(4), linear(5), norm(6), norm(8)});
    }
    return Encoder::Create(std::move(spec));
  }
};

struct Batch {
  size_t batch = 0, sequence = 0;
  std::vector<float> x;
  std::vector<int64_t> mask;  // empty: none
};

// Padding behind, in front, holes, nothing at all, everything.
Batch RandomBatch(const EncoderCase& c, size_t batch, size_t sequence, bool masked, uint32_t seed) {
  Batch out{batch, sequence, RandomFloats(batch * sequence * c.hidden, seed), {}};
  if (!masked) return out;
  out.mask.assign(batch * sequence, 1);
  for (size_t b = 0; b < batch; ++b) {
    for (size_t t = 0; t < sequence; ++t) {
      const bool there[] = {t <= sequence / 2, t > 0, t % 3 != 1, false, true};
      out.mask[b * sequence + t] = there[(b + seed) % 5] ? 5 : 0;
    }
  }
  return out;
}

std::vector<float> Run(const Encoder& encoder, const EncoderCase& c, const Batch& batch,
                       size_t threads) {
  std::vector<float> y(batch.batch * (c.first ? 1 : batch.sequence) * c.hidden, -7.0f);
  encoder.Run(batch.x.data(), batch.mask.empty() ? nullptr : batch.mask.data(), batch.batch,
              batch.sequence, y.data(), Threads(threads));
  return y;
}

using Rows = std::vector<std::vector<double>>;  // [tokens][features]

Rows ReferenceProduct(const EncoderCase& c, size_t layer, size_t i, const Rows& x) {
  const Matrix& w = c.matrices[6 * layer + i];
  Rows y;
  for (const auto& token : x) {
    y.emplace_back();
    for (size_t row = 0; row < w.rows; ++row) {
      double sum = c.vectors[10 * layer + i][row];
      for (size_t k = 0; k < w.columns; ++k) sum += static_cast<double>(w.at(row, k)) * token[k];
      y.back().push_back(i == 4 ? sum * 0.5 * (1.0 + std::erf(sum / std::sqrt(2.0))) : sum);
    }
  }
  return y;
}

void ReferenceNorm(const EncoderCase& c, size_t layer, size_t i, const Rows& added, Rows* x) {
  for (size_t t = 0; t < x->size(); ++t) {
    auto& token = (*x)[t];
    double mean = 0.0, variance = 0.0;
    for (size_t f = 0; f < c.hidden; ++f) mean += (token[f] += added[t][f]) / c.hidden;
    for (const double value : token) variance += (value - mean) * (value - mean) / c.hidden;
    for (size_t f = 0; f < c.hidden; ++f) {
      token[f] = (token[f] - mean) / std::sqrt(variance + 1e-5) * c.vectors[10 * layer + i][f] +
                 c.vectors[10 * layer + i + 1][f];
    }
  }
}

Rows ReferenceAttention(const EncoderCase& c, const Rows& q, const Rows& k, const Rows& v) {
  const size_t size = c.hidden / c.heads;
  Rows out(q.size(), std::vector<double>(c.hidden, 0.0));
  for (size_t head = 0; head < c.heads; ++head) {
    for (size_t i = 0; i < q.size(); ++i) {
      std::vector<double> weight(q.size());
      double sum = 0.0;
      for (size_t j = 0; j < q.size(); ++j) {
        double dot = 0.0;
        for (size_t f = head * size; f < (head + 1) * size; ++f) dot += q[i][f] * k[j][f];
        sum += weight[j] = std::exp(dot * c.scale());
      }
      for (size_t j = 0; j < q.size(); ++j) {
        for (size_t f = head * size; f < (head + 1) * size; ++f) {
          out[i][f] += weight[j] / sum * v[j][f];
        }
      }
    }
  }
  return out;
}

std::vector<double> ReferenceEncoder(const EncoderCase& c, const Batch& batch) {
  const size_t rows = c.first ? 1 : batch.sequence;
  std::vector<double> y(batch.batch * rows * c.hidden, 0.0);
  for (size_t b = 0; b < batch.batch; ++b) {
    std::vector<size_t> there;
    Rows x;
    for (size_t t = 0; t < batch.sequence; ++t) {
      if (!batch.mask.empty() && batch.mask[b * batch.sequence + t] == 0) continue;
      const float* in = batch.x.data() + (b * batch.sequence + t) * c.hidden;
      x.emplace_back(in, in + c.hidden);
      there.push_back(t);
    }
    for (size_t layer = 0; layer < c.layers; ++layer) {
      const auto product = [&](size_t i, const Rows& in) {
        return ReferenceProduct(c, layer, i, in);
      };
      const Rows context = ReferenceAttention(c, product(0, x), product(1, x), product(2, x));
      ReferenceNorm(c, layer, 6, product(3, context), &x);
      ReferenceNorm(c, layer, 8, product(5, product(4, x)), &x);
    }
    for (size_t i = 0; i < there.size(); ++i) {
      if (there[i] < rows) {
        std::copy(x[i].begin(), x[i].end(),
                  y.begin() + static_cast<ptrdiff_t>((b * rows + there[i]) * c.hidden));
      }
    }
  }
  return y;
}

void TestEncoder(Isa isa) {
  const size_t sizes[][2] = {{1, 1}, {1, 40}, {5, 9}, {6, 33}, {2, 130}};
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    for (const bool first : {false, true}) {
      for (const size_t heads : {1, 3, 8}) {
        EncoderCase c;
        c.compute = compute;
        c.first = first;
        c.heads = heads;
        c.layers = heads == 3 ? 2 : 1;
        c.Fill(0.3, static_cast<uint32_t>(heads));
        const auto encoder = c.Make();
        for (const auto& size : sizes) {
          for (const bool masked : {false, true}) {
            const Batch batch = RandomBatch(c, size[0], size[1], masked, 3);
            const std::string note = std::string(Name(isa)) + ", batch " + std::to_string(size[0]) +
                                     ", sequence " + std::to_string(size[1]) + ", heads " +
                                     std::to_string(heads) +
                                     (compute == Compute::kInt8 ? ", int8" : ", fp32") +
                                     (first ? ", first" : ", all") + (masked ? ", masked" : "");
            const auto y = Run(*encoder, c, batch, 1);
            const auto expected = ReferenceEncoder(c, batch);
            double worst = 0.0, sum = 0.0;
            for (size_t i = 0; i < y.size(); ++i) {
              const double difference = std::fabs(y[i] - expected[i]);
              worst = difference <= worst ? worst : difference;  // also if it is NaN
              sum += difference;
            }
            if (compute == Compute::kFp32) {
              EXPECT(worst < 1e-4, note + ": " + std::to_string(worst));
            } else {
              EXPECT(sum / static_cast<double>(y.size()) < 0.03, note + ": " + std::to_string(sum));
            }
            for (const size_t threads : {2, 3}) {
              EXPECT(SameBits(Run(*encoder, c, batch, threads), y), note);
            }
          }
        }
      }
    }
  }
}

void TestEncoderBadTokens(Isa isa) {
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    EncoderCase c;
    c.compute = compute;
    c.Fill(0.4, 5);
    const auto encoder = c.Make();
    // Sequences of odd lengths, side by side in one tile.
    Batch batch = RandomBatch(c, 7, 11, false, 0);
    const auto clean = Run(*encoder, c, batch, 1);
    for (const size_t b : {0, 3, 6}) {
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        Batch changed = batch;
        changed.x[(b * 11 + 10) * c.hidden + 2] = bad;
        auto y = Run(*encoder, c, changed, 2);
        for (size_t i = b * 11 * c.hidden; i < (b + 1) * 11 * c.hidden; ++i) {
          EXPECT(std::isnan(y[i]), Name(isa));
          y[i] = clean[i];
        }
        EXPECT(SameBits(y, clean), std::string("other sequences, ") + Name(isa));
      }
    }
    // What is masked away may be anything.
    batch = RandomBatch(c, 5, 20, true, 1);
    const auto masked = Run(*encoder, c, batch, 1);
    for (size_t i = 0; i < batch.mask.size(); ++i) {
      if (batch.mask[i] != 0) continue;
      std::fill_n(batch.x.begin() + static_cast<ptrdiff_t>(i * c.hidden), c.hidden,
                  std::numeric_limits<float>::quiet_NaN());
    }
    EXPECT(SameBits(Run(*encoder, c, batch, 2), masked), std::string("masked, ") + Name(isa));
  }
}

// ---- many threads at once

void Together(size_t threads, const std::function<void(size_t)>& fn) {
  std::vector<std::thread> all;
  for (size_t i = 0; i < threads; ++i) all.emplace_back(fn, i);
  for (std::thread& thread : all) thread.join();
}

void TestConcurrentRuns(Isa isa) {
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    LinearCase l;
    l.matrix = RandomMatrix(70, 90, 0.2, 3);
    l.compute = compute;
    l.gamma = RandomFloats(70, 1);
    l.beta = RandomFloats(70, 2);
    EncoderCase e;
    e.compute = compute;
    e.Fill(0.3, 77);
    const auto linear = l.Make();
    const auto encoder = e.Make();
    constexpr size_t kInputs = 6;
    std::vector<std::vector<float>> x(kInputs), linear_y(kInputs), encoder_y(kInputs);
    std::vector<Batch> batches(kInputs);
    for (size_t i = 0; i < kInputs; ++i) {
      x[i] = RandomFloats((1 + 30 * i) * 90, static_cast<uint32_t>(i));
      batches[i] = RandomBatch(e, 1 + i, 5 + 9 * i, i % 2 == 1, static_cast<uint32_t>(i));
      linear_y[i] = Run(*linear, l.matrix, x[i], nullptr, 1);
      encoder_y[i] = Run(*encoder, e, batches[i], 1);
    }
    Together(4, [&](size_t thread) {
      for (size_t round = 0; round < 6; ++round) {
        const size_t i = (thread + round) % kInputs, threads = 1 + (thread + round) % 3;
        EXPECT(SameBits(Run(*linear, l.matrix, x[i], nullptr, threads), linear_y[i]), Name(isa));
        EXPECT(SameBits(Run(*encoder, e, batches[i], threads), encoder_y[i]), Name(isa));
        EXPECT(!encoder->TimeByStage().empty() && !encoder->PlanJson().empty(), Name(isa));
      }
    });
  }
}

void TestRegistry() {
  const Bytes blobs[] = {Encode(RandomMatrix(20, 30, 0.3, 1), kFp32, kBitmap),
                         Encode(RandomMatrix(20, 30, 0.3, 2), kInt8, kGaps)};
  EXPECT(Product::Held() == 0, "");
  {
    std::vector<std::shared_ptr<const Product>> held(8);
    Together(8, [&](size_t i) {
      const Bytes& blob = blobs[i % 2];
      std::string error;
      held[i] =
          Product::Make(*DecodeWeights(blob.data(), blob.size(), &error), Kernel::kSparseInt8);
      const LiveNode node({"n\"" + std::to_string(i), "op", [] { return std::string("[]"); },
                           [] { return Profile{{"a", 1.5}, {"b", 2.0}}; }});
      const std::string report = LiveNodesJson();
      EXPECT(report.find("\"n\\\"" + std::to_string(i) + "\"") != std::string::npos, report);
      ResetProfiles();
      EXPECT(LiveNodesJson().find("\"a\": 0.000") != std::string::npos, LiveNodesJson());
    });
    for (size_t i = 0; i < held.size(); ++i) EXPECT(held[i] == held[i % 2], "shared");
    EXPECT(held[0] != held[1] && Product::Held() == 2, "two different ones");
    std::string error;
    const auto weights = DecodeWeights(blobs[0].data(), blobs[0].size(), &error);
    EXPECT(Product::Make(*weights, Kernel::kDenseInt8) != held[0], "of another kernel");
  }
  EXPECT(Product::Held() == 0, "nobody holds them");
  EXPECT(LiveNodesJson() == "[]", LiveNodesJson());
}

void TestIsas() {
  EXPECT(Supported(Isa::kScalar), "");
  for (const Isa isa : kAllIsas) {
    EXPECT(IsaFromName(Name(isa)) == isa, Name(isa));
    bool thrown = false;
    try {
      ForceIsa(isa);
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    EXPECT(thrown != Supported(isa), Name(isa));
    EXPECT(thrown || ActiveIsa() == isa, Name(isa));
  }
  EXPECT(!IsaFromName("mmx"), "");
}

}  // namespace

int main() {
  TestHash();
  TestTasks();
  TestDecodeValid();
  TestDecodeRefuses();
  TestRegistry();
  TestIsas();
  TestLinearRefuses();
  for (const Isa isa : kAllIsas) {
    if (!Supported(isa)) {
      std::printf("%s: not on this CPU\n", Name(isa));
      continue;
    }
    ForceIsa(isa);
    TestIntegerSums(isa);
    for (const char* plan : {"sparse", "dense"}) {
      setenv("SMP_ENGINE_PLAN", plan, 1);
      TestLinear(isa);
      TestLinearBadTokens(isa);
      TestEncoder(isa);
      TestEncoderBadTokens(isa);
    }
    setenv("SMP_ENGINE_PLAN", "sparse", 1);
    TestConcurrentRuns(isa);
    std::printf("%s: done\n", Name(isa));
  }
  if (failures > 0) std::fprintf(stderr, "%d failures\n", failures.load());
  return failures > 0 ? 1 : 0;
}
