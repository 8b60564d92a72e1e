#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "blob.h"
#include "cases.h"
#include "checks.h"
#include "cpu.h"
#include "engine.h"
#include "tests.h"

namespace smp::test {
namespace {

// Plain and in double; `error` is how far float or int8 arithmetic may be from it.
struct Reference {
  std::vector<double> y, error;
};

Reference ReferenceLinear(const LinearCase& c, const std::vector<float>& x, const float* residual) {
  const Matrix& w = c.matrix;
  const size_t tokens = x.size() / w.columns;
  std::vector<double> y(tokens * w.rows), error(tokens * w.rows);
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
      y[t * w.rows + row] = sum;
      error[t * w.rows + row] = slack;
    }
    if (c.gamma.empty()) continue;
    double* out = y.data() + t * w.rows;
    double* slack = error.data() + t * w.rows;
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
  return {std::move(y), std::move(error)};
}

std::string Note(Isa isa, const LinearCase& c, size_t tokens) {
  return std::string(Name(isa)) + ", " + std::to_string(c.matrix.rows) + " x " +
         std::to_string(c.matrix.columns) + ", tokens " + std::to_string(tokens) +
         (c.compute == Compute::kInt8 ? ", int8" : ", fp32");
}

}  // namespace

void TestLinear(Isa isa) {
  // The same on all instruction sets and plans, and slow where an emulator works them out.
  static std::map<std::pair<uint32_t, size_t>, Reference> references;
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
          Reference& expected = references[{seed, tokens}];
          if (expected.y.empty()) expected = ReferenceLinear(c, x, added);
          for (size_t i = 0; i < y.size(); ++i) {
            if (!(std::fabs(y[i] - expected.y[i]) <= expected.error[i])) {
              Report(__FILE__, __LINE__,
                     Note(isa, c, tokens) + ": " + std::to_string(y[i]) + " is not " +
                         std::to_string(expected.y[i]) + " +- " +
                         std::to_string(expected.error[i]));
              break;
            }
          }
          const size_t threads = 2 + tokens % 2;
          EXPECT(SameBits(Run(*linear, c.matrix, x, added, threads), y), Note(isa, c, tokens));
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

}  // namespace smp::test
