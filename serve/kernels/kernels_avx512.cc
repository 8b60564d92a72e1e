#include "vec_avx512.h"
// The vectors must come first.
#include "kernels_table.h"

namespace smp {
const KernelTable& Avx512Kernels() {
  static const KernelTable table = MakeTable(Isa::kAvx512);
  return table;
}
}  // namespace smp
