#include "vec_scalar.h"
// The vectors must come first.
#include "kernels_table.h"

namespace smp {
const KernelTable& ScalarKernels() {
  static const KernelTable table = MakeTable(Isa::kScalar);
  return table;
}
}  // namespace smp
