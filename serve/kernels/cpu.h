// Which instruction set the kernels use: the best one of this CPU, or the one that was asked for.
#pragma once

#include <optional>
#include <string>

namespace smp {

// What each one stands for, on x86-64:
//   kAvx2        x86-64-v3: AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE, POPCNT
//   kAvx512      x86-64-v4: the above and AVX-512 F, BW, CD, DQ, VL
//   kAvx512Vnni  the above and AVX-512 VNNI
// on AArch64:
//   kNeon        what every such CPU has
//   kNeonDot     the above and FEAT_DotProd
//   kNeonI8mm    the above and FEAT_I8MM
// All other processors run kScalar.
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vnni, kNeon, kNeonDot, kNeonI8mm };

constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kAvx2,    Isa::kAvx512,  Isa::kAvx512Vnni,
                            Isa::kNeon,   Isa::kNeonDot, Isa::kNeonI8mm};

// True if the CPU has it and the operating system saves its registers.
bool Supported(Isa isa);

// "scalar", "avx2", "avx512", "avx512_vnni", "neon", "neon_dot", "neon_i8mm".
const char* Name(Isa isa);
std::optional<Isa> IsaFromName(const std::string& name);

// The best supported one, unless the environment variable SMP_ENGINE_ISA names another. Throws
// std::runtime_error with one line if it names one that is unknown or that this CPU lacks.
Isa ActiveIsa();

// For tests: what ActiveIsa gives from now on, in all threads. Throws like ActiveIsa.
void ForceIsa(Isa isa);

}  // namespace smp
