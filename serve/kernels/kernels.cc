#include "kernels.h"

namespace smp {

const KernelTable& Kernels(Isa isa) {
  switch (isa) {
#if defined(__x86_64__) || defined(_M_X64)
    case Isa::kAvx2:
      return Avx2Kernels();
    case Isa::kAvx512:
      return Avx512Kernels();
    case Isa::kAvx512Vnni:
      return Avx512VnniKernels();
#elif defined(__aarch64__)
    case Isa::kNeon:
      return NeonKernels();
    case Isa::kNeonDot:
      return NeonDotKernels();
    case Isa::kNeonI8mm:
      return NeonI8mmKernels();
#endif
    default:
      return ScalarKernels();
  }
}

}  // namespace smp
