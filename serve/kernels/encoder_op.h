// The operator SmpEncoder: consecutive post-norm transformer layers (BERT).
#pragma once

#include <memory>

#include "custom_op.h"
#include "engine.h"
#include "registry.h"

namespace smp {

class EncoderKernel {
 public:
  static constexpr const char* kName = "SmpEncoder";
  static constexpr OpInput kInputs[] = {
      {ort::kFloat, ort::kRequired},      // X [batch, sequence, hidden]
      {ort::kInt64, ort::kOptional},      // mask [batch, sequence], 0 = not there
      {ort::kUndefined, ort::kVariadic},  // weights, 16 a layer: see encoder_op.cc
  };

  explicit EncoderKernel(const NodeInfo& info);
  void Compute(const RunContext& context, const Parallel& parallel) const;
  static void InferShape(const ShapeInfo& shapes);

 private:
  const int64_t hidden_;
  const bool first_token_only_;
  const bool has_mask_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<LiveNode> live_;  // last: its functions use the rest
};

}  // namespace smp
