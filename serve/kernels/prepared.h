// A linear layer with its kernel chosen.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

#include "plan.h"
#include "registry.h"

namespace smp {

struct PreparedLinear {
  std::string name;
  std::shared_ptr<const Product> product;
  std::vector<float> bias;
  Activation activation;
  bool approximate;

  const float* Bias() const { return bias.empty() ? nullptr : bias.data(); }

  std::string Json() const {
    char numbers[160];
    const double size =
        static_cast<double>(product->rows()) * static_cast<double>(product->columns());
    std::snprintf(numbers, sizeof numbers,
                  "\"kernel\": \"%s\", \"rows\": %zu, \"columns\": %zu, \"density\": %.6g}",
                  Name(product->kernel()), product->rows(), product->columns(),
                  size > 0.0 ? static_cast<double>(product->nonzeros()) / size : 0.0);
    return "{\"name\": " + JsonText(name) + ", " + numbers;
  }
};

// Throws std::invalid_argument if the bias does not fit.
inline PreparedLinear PrepareLinear(const LinearSpec& spec, const KernelTable& table) {
  if (!spec.bias.empty() && spec.bias.size() != spec.weights->rows) {
    throw std::invalid_argument(spec.name + ": the bias has " + std::to_string(spec.bias.size()) +
                                " values, the weights have " + std::to_string(spec.weights->rows) +
                                " rows");
  }
  const Kernel kernel = ChooseKernel(*spec.weights, spec.compute, table);
  // Beside int8 products an activation need not be better than what they can resolve.
  return {spec.name, Product::Make(*spec.weights, kernel), spec.bias, spec.activation,
          spec.compute == Compute::kInt8};
}

inline const KernelTable& ActiveKernels() { return Kernels(ActiveIsa()); }

}  // namespace smp
