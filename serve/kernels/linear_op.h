// The operator SmpLinear: Y = norm(activation(X W^T + bias) + residual).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "custom_op.h"
#include "engine.h"
#include "registry.h"

namespace smp {

// The constant input `index` of a node as decoded weights, which must have that shape.
std::shared_ptr<const Weights> WeightsInput(const NodeInfo& info, size_t index,
                                            const std::string& label, size_t rows, size_t columns);

class LinearKernel {
 public:
  static constexpr const char* kName = "SmpLinear";
  static constexpr OpInput kInputs[] = {
      {ort::kFloat, ort::kRequired},  // X [..., in_features]
      {ort::kUint8, ort::kRequired},  // W, encoded
      {ort::kFloat, ort::kOptional},  // bias [out_features]
      {ort::kFloat, ort::kOptional},  // residual [..., out_features]
      {ort::kFloat, ort::kOptional},  // gamma [out_features]
      {ort::kFloat, ort::kOptional},  // beta [out_features]
  };

  explicit LinearKernel(const NodeInfo& info);
  void Compute(const RunContext& context, const Parallel& parallel) const;
  static void InferShape(const ShapeInfo& shapes);

 private:
  const int64_t in_features_;
  const int64_t out_features_;
  const bool has_residual_;
  std::unique_ptr<const Linear> linear_;
  mutable std::atomic<int64_t> nanoseconds_{0};
  std::unique_ptr<LiveNode> live_;  // last: its functions use the rest
};

}  // namespace smp
