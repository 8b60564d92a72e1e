// Which kernel multiplies by a matrix: chosen by a short measurement on this CPU.
#pragma once

#include "engine.h"
#include "kernels.h"
#include "product.h"

namespace smp {

// The fastest kernel for a matrix of this shape and density. Measured once per instruction set,
// shape and density, on random weights, and kept in memory and in a file:
// $SMP_ENGINE_CACHE, else $XDG_CACHE_HOME/smp-pipeline/, else ~/.cache/smp-pipeline/ (a cache that
// cannot be written is no error). The environment variable SMP_ENGINE_PLAN = sparse or dense
// forces the choice. Throws std::runtime_error with one line if it is anything else but auto.
//
// Int8 weighs sparse against dense int8, whose results are the same bit for bit; where the CPU has
// no byte products, sparse fp32 too. fp32 weighs sparse against dense fp32.
Kernel ChooseKernel(const Weights& weights, Compute compute, const KernelTable& table);

}  // namespace smp
