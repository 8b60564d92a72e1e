// Linear layers and encoders that the tests make, with inputs for them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "blob.h"
#include "checks.h"
#include "engine.h"
#include "threads.h"
#include "weights.h"

namespace smp::test {

inline std::shared_ptr<const Weights> MustDecode(const Bytes& blob) {
  std::string error;
  auto weights = DecodeWeights(blob.data(), blob.size(), &error);
  if (!weights) {
    Report(__FILE__, __LINE__, "does not decode: " + error);
    std::exit(1);
  }
  return weights;
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

inline std::vector<float> Run(const Linear& linear, const Matrix& matrix,
                              const std::vector<float>& x, const float* residual, size_t threads) {
  const size_t tokens = x.size() / matrix.columns;
  std::vector<float> y(tokens * matrix.rows, -7.0f);
  linear.Run(x.data(), tokens, residual, y.data(), Threads(threads));
  return y;
}

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
inline Batch RandomBatch(const EncoderCase& c, size_t batch, size_t sequence, bool masked,
                         uint32_t seed) {
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

inline std::vector<float> Run(const Encoder& encoder, const EncoderCase& c, const Batch& batch,
                              size_t threads) {
  std::vector<float> y(batch.batch * (c.first ? 1 : batch.sequence) * c.hidden, -7.0f);
  encoder.Run(batch.x.data(), batch.mask.empty() ? nullptr : batch.mask.data(), batch.batch,
              batch.sequence, y.data(), Threads(threads));
  return y;
}

}  // namespace smp::test
