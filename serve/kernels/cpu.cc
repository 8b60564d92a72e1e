#include "cpu.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace smp {
namespace {

std::atomic<int> forced{-1};

#if defined(__x86_64__)

constexpr Isa kFirst = Isa::kAvx2;  // of this architecture, each one with all before it
constexpr char kNames[] = "scalar, avx2, avx512 or avx512_vnni";

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers Cpuid(uint32_t leaf) {
  Registers r;  // all zero if the CPU has no such leaf
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// Which register states the operating system saves; only with OSXSAVE.
uint64_t SavedStates() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

constexpr uint32_t Bits() { return 0; }
template <typename... Rest>
constexpr uint32_t Bits(int first, Rest... rest) {
  return (1U << first) | Bits(rest...);
}

constexpr bool Has(uint64_t value, uint64_t wanted) { return (value & wanted) == wanted; }

Isa Detect() {
  const Registers basic = Cpuid(1), extended = Cpuid(7), amd = Cpuid(0x80000001);
  // FMA, MOVBE, POPCNT, OSXSAVE, AVX, F16C
  if (!Has(basic.ecx, Bits(12, 22, 23, 27, 28, 29))) return Isa::kScalar;
  const uint64_t saved = SavedStates();
  if (!Has(saved, Bits(1, 2))) return Isa::kScalar;  // SSE and AVX registers
  // BMI1, AVX2, BMI2; LZCNT
  if (!Has(extended.ebx, Bits(3, 5, 8)) || !Has(amd.ecx, Bits(5))) return Isa::kScalar;
  if (!Has(saved, Bits(5, 6, 7))) return Isa::kAvx2;  // mask registers and the upper ZMM halves
  // AVX-512 F, DQ, CD, BW, VL
  if (!Has(extended.ebx, Bits(16, 17, 28, 30, 31))) return Isa::kAvx2;
  if (!Has(extended.ecx, Bits(11))) return Isa::kAvx512;  // VNNI
  return Isa::kAvx512Vnni;
}

#elif defined(__aarch64__)

constexpr Isa kFirst = Isa::kNeon;
constexpr char kNames[] = "scalar, neon, neon_dot or neon_i8mm";

#if defined(__linux__)
// By number: older systems' headers lack the names.
bool HasDotProd() { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; }
bool HasI8mm() { return (getauxval(AT_HWCAP2) >> 13 & 1) != 0; }
#elif defined(__APPLE__)
bool Says(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool HasDotProd() { return Says("hw.optional.arm.FEAT_DotProd"); }
bool HasI8mm() { return Says("hw.optional.arm.FEAT_I8MM"); }
#else
bool HasDotProd() { return false; }
bool HasI8mm() { return false; }
#endif

Isa Detect() {
  if (!HasDotProd()) return Isa::kNeon;
  return HasI8mm() ? Isa::kNeonI8mm : Isa::kNeonDot;
}

#else

constexpr Isa kFirst = Isa::kScalar;
constexpr char kNames[] = "scalar";

Isa Detect() { return Isa::kScalar; }

#endif

Isa Best() {
  static const Isa best = Detect();
  return best;
}

void CheckSupported(Isa isa, const char* source) {
  if (Supported(isa)) return;
  throw std::runtime_error(std::string(source) + " asks for " + Name(isa) +
                           ", but the best that this CPU has is " + Name(Best()));
}

Isa FromEnvironmentOrBest() {
  const char* wanted = std::getenv("SMP_ENGINE_ISA");
  if (wanted == nullptr || *wanted == '\0') return Best();
  const std::optional<Isa> isa = IsaFromName(wanted);
  if (!isa) {
    throw std::runtime_error(std::string("SMP_ENGINE_ISA is ") + wanted + ": expected " + kNames);
  }
  CheckSupported(*isa, "SMP_ENGINE_ISA");
  return *isa;
}

}  // namespace

bool Supported(Isa isa) { return isa == Isa::kScalar || (isa >= kFirst && isa <= Best()); }

const char* Name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonDot:
      return "neon_dot";
    case Isa::kNeonI8mm:
      return "neon_i8mm";
    default:
      return "scalar";
  }
}

std::optional<Isa> IsaFromName(const std::string& name) {
  for (const Isa isa : kAllIsas) {
    if (name == Name(isa)) return isa;
  }
  return std::nullopt;
}

Isa ActiveIsa() {
  const int override_isa = forced.load(std::memory_order_relaxed);
  if (override_isa >= 0) return static_cast<Isa>(override_isa);
  static const Isa active = FromEnvironmentOrBest();  // tried again if it throws
  return active;
}

void ForceIsa(Isa isa) {
  CheckSupported(isa, "ForceIsa");
  forced.store(static_cast<int>(isa), std::memory_order_relaxed);
}

}  // namespace smp
