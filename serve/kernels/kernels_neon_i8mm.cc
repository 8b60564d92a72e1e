#include "vec_neon.h"
// The vectors must come first.
#include "kernels_table.h"

namespace smp {
const KernelTable& NeonI8mmKernels() {
  static const KernelTable table = MakeTable(Isa::kNeonI8mm);
  return table;
}
}  // namespace smp
