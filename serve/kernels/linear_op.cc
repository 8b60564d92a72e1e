#include "linear_op.h"

#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>

#include "options.h"

namespace smp {
namespace {

constexpr size_t kX = 0, kW = 1, kBias = 2, kResidual = 3, kGamma = 4, kBeta = 5;
constexpr int64_t kMaxFeatures = 1 << 24;

}  // namespace

std::shared_ptr<const Weights> WeightsInput(const NodeInfo& info, size_t index,
                                            const std::string& label, size_t rows, size_t columns) {
  const ConstTensor tensor = info.Constant(index, label, ort::kUint8, 1);
  std::string error;
  auto weights =
      DecodeWeights(static_cast<const uint8_t*>(tensor.data), ElementCount(tensor.dims, 1), &error);
  if (!weights) throw std::invalid_argument("input " + label + ": " + error);
  if (weights->rows != rows || weights->columns != columns) {
    throw std::invalid_argument("input " + label + " is " + std::to_string(weights->rows) + " x " +
                                std::to_string(weights->columns) +
                                " (out x in features); the node's attributes say " +
                                std::to_string(rows) + " x " + std::to_string(columns));
  }
  return weights;
}

LinearKernel::LinearKernel(const NodeInfo& info)
    : in_features_(info.Int("in_features", 1, kMaxFeatures)),
      out_features_(info.Int("out_features", 1, kMaxFeatures)),
      has_residual_(info.HasInput(kResidual)) {
  const size_t rows = static_cast<size_t>(out_features_);
  LinearSpec linear;
  linear.name = info.Name();
  linear.activation = ActivationFromName(info.String("activation"));
  linear.compute = ComputeFromName(info.String("compute"));
  linear.weights = WeightsInput(info, kW, "W", rows, static_cast<size_t>(in_features_));
  if (info.HasInput(kBias)) linear.bias = info.Vector(kBias, "bias", rows);
  if (info.HasInput(kGamma) != info.HasInput(kBeta)) {
    throw std::invalid_argument("gamma and beta go together; only one of them is given");
  }
  NormSpec norm;
  norm.epsilon = info.Float("epsilon");
  if (info.HasInput(kGamma)) {
    norm.gamma = info.Vector(kGamma, "gamma", rows);
    norm.beta = info.Vector(kBeta, "beta", rows);
  }
  linear_ = Linear::Create(std::move(linear), std::move(norm));
  live_ = std::make_unique<LiveNode>(NodeSource{
      info.Name(), kName, [this] { return "[" + linear_->PlanJson() + "]"; },
      [this] { return Profile{{"linear", static_cast<double>(nanoseconds_.load()) * 1e-9}}; }});
}

void LinearKernel::Compute(const RunContext& context, const Parallel& parallel) const {
  const auto start = std::chrono::steady_clock::now();
  const std::optional<ConstTensor> x = context.Input(kX);
  if (!x || x->dims.empty() || x->dims.back() != in_features_) {
    throw std::invalid_argument("X has the shape " + (x ? ToText(x->dims) : "of nothing") +
                                "; expected [..., " + std::to_string(in_features_) + "]");
  }
  Dims y_dims = x->dims;
  y_dims.back() = out_features_;
  const float* residual = nullptr;
  if (has_residual_) {
    const std::optional<ConstTensor> input = context.Input(kResidual);
    if (!input || input->dims != y_dims) {
      throw std::invalid_argument("residual has the shape " +
                                  (input ? ToText(input->dims) : "of nothing") + "; expected " +
                                  ToText(y_dims));
    }
    residual = static_cast<const float*>(input->data);
  }
  float* y = context.Output(0, y_dims);
  const size_t tokens = ElementCount(y_dims, y_dims.size() - 1);
  if (tokens == 0) return;
  linear_->Run(static_cast<const float*>(x->data), tokens, residual, y, parallel);
  nanoseconds_ +=
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start)
          .count();
}

void LinearKernel::InferShape(const ShapeInfo& shapes) {
  std::vector<SymbolicDim> dims = shapes.Input(kX);
  if (dims.empty()) return;
  dims.back() = {shapes.Int("out_features"), ""};
  shapes.SetOutput(0, dims);
}

}  // namespace smp
