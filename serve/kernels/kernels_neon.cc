#include "vec_neon.h"
// The vectors must come first.
#include "kernels_table.h"

namespace smp {
const KernelTable& NeonKernels() {
  static const KernelTable table = MakeTable(Isa::kNeon);
  return table;
}
}  // namespace smp
