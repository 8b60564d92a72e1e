#define SMP_VNNI
#include "vec_avx512.h"
// The vectors must come first.
#include "kernels_table.h"

namespace smp {
const KernelTable& Avx512VnniKernels() {
  static const KernelTable table = MakeTable(Isa::kAvx512Vnni);
  return table;
}
}  // namespace smp
