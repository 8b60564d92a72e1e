// The options of operators that are texts.
#pragma once

#include <string>

#include "engine.h"

namespace smp {

// Both throw std::invalid_argument with one line for an unknown name.
Activation ActivationFromName(const std::string& name);
Compute ComputeFromName(const std::string& name);

}  // namespace smp
