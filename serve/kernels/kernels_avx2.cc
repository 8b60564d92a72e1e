#include "vec_avx2.h"
// The vectors must come first.
#include "kernels_table.h"

namespace smp {
const KernelTable& Avx2Kernels() {
  static const KernelTable table = MakeTable(Isa::kAvx2);
  return table;
}
}  // namespace smp
