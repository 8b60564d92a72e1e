#include "options.h"

#include <stdexcept>

namespace smp {

Activation ActivationFromName(const std::string& name) {
  if (name == "none") return Activation::kNone;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "tanh") return Activation::kTanh;
  if (name == "silu") return Activation::kSilu;
  throw std::invalid_argument("activation is '" + name +
                              "'; expected none, gelu, gelu_tanh, relu, tanh or silu");
}

Compute ComputeFromName(const std::string& name) {
  if (name == "fp32") return Compute::kFp32;
  if (name == "int8") return Compute::kInt8;
  throw std::invalid_argument("compute is '" + name + "'; expected fp32 or int8");
}

}  // namespace smp
