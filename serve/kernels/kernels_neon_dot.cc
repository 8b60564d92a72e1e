#include "vec_neon.h"
// The vectors must come first.
#include "kernels_table.h"

namespace smp {
const KernelTable& NeonDotKernels() {
  static const KernelTable table = MakeTable(Isa::kNeonDot);
  return table;
}
}  // namespace smp
