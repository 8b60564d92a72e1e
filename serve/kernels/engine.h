// What the operators run: linear layers and encoder layers over sparse weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "weights.h"

namespace smp {

// Stage -> seconds so far.
using Profile = std::map<std::string, double>;

enum class Compute { kFp32, kInt8 };
enum class Activation { kNone, kGelu, kGeluTanh, kRelu, kTanh, kSilu };

// Runs fn(0) .. fn(count - 1), in any order and on any threads, and waits for all of them.
class Parallel {
 public:
  virtual ~Parallel() = default;
  virtual void For(size_t count, const std::function<void(size_t)>& fn) const = 0;
};

struct LinearSpec {
  std::string name;  // for the plan and the profile
  std::shared_ptr<const Weights> weights;
  std::vector<float> bias;  // [rows]; empty: none
  Activation activation = Activation::kNone;
  Compute compute = Compute::kFp32;
};

struct NormSpec {
  std::vector<float> gamma;  // [features]; empty: no normalisation
  std::vector<float> beta;   // [features]
  float epsilon = 1e-12f;
};

// y = norm(activation(x W^T + bias) + residual); tensors are [tokens, features], row-major.
class Linear {
 public:
  // Throws std::invalid_argument with one line when sizes do not fit.
  static std::unique_ptr<Linear> Create(LinearSpec linear, NormSpec norm);
  virtual ~Linear() = default;
  // residual: [tokens, rows] or null. Any float in x is allowed: a token with NaN or infinity
  // harms its own row of y alone (int8: the whole row becomes NaN; fp32: what reads the value).
  virtual void Run(const float* x, size_t tokens, const float* residual, float* y,
                   const Parallel& parallel) const = 0;
  virtual std::string PlanJson() const = 0;  // {"name":..., "kernel":..., "density":...}
};

// A post-norm transformer layer (BERT): attention, residual, norm, feed-forward, residual, norm.
struct LayerSpec {
  LinearSpec query, key, value, output, intermediate, down;
  NormSpec attention_norm, output_norm;
};

struct EncoderSpec {
  NormSpec input_norm;  // of x, before the first layer; with an empty gamma: none
  std::vector<LayerSpec> layers;
  size_t heads = 0;
  float scale = 0.0f;             // of the attention scores, 1 / sqrt(head size)
  bool first_token_only = false;  // only each sequence's first token is wanted
};

class Encoder {
 public:
  static std::unique_ptr<Encoder> Create(EncoderSpec spec);  // throws std::invalid_argument
  virtual ~Encoder() = default;
  // x: [batch, sequence, features]; mask: [batch, sequence], 0 = not there, or null.
  // y: like x, or [batch, 1, features] with first_token_only. Tokens that are masked away give
  // zeros. Safe to call from several threads at once.
  virtual void Run(const float* x, const int64_t* mask, size_t batch, size_t sequence, float* y,
                   const Parallel& parallel) const = 0;
  virtual std::string PlanJson() const = 0;  // a list, one entry a matrix
  virtual Profile TimeByStage() const = 0;   // all Runs together
};

}  // namespace smp
