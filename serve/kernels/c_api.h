// The plain C interface of libsmp_engine, beside RegisterCustomOps (which ONNX Runtime calls).
// No function lets an exception out, and all may be called from several threads at once.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SMP_EXPORT __declspec(dllexport)
#else
#define SMP_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// The version of this interface and of the weights' encoding.
SMP_EXPORT int smp_engine_version(void);

// The instruction set in use, by a name from cpu.h ("scalar", "avx2", ...). Null if the environment
// variable SMP_ENGINE_ISA asks for one that is unknown or that this CPU lacks.
SMP_EXPORT const char* smp_engine_isa(void);

// For tests: another instruction set for what is created from now on. 0: done.
SMP_EXPORT int smp_engine_force_isa(const char* isa);

// 1 if this CPU and operating system have it.
SMP_EXPORT int smp_engine_supported(const char* isa);

// Decodes weights into dense_out [rows, columns], which must have exactly that many elements.
// 0: done; else one line in `error`.
SMP_EXPORT int smp_engine_decode(const uint8_t* blob, size_t blob_size, float* dense_out,
                                 size_t dense_size, char* error, size_t error_size);

// y = norm(activation(x W^T + bias) + residual) on `threads` threads: creates a linear layer, runs
// it once and destroys it. x: [tokens, columns]; residual and y: [tokens, rows]; bias, gamma and
// beta: [rows]; all but x and y may be null, gamma and beta only together. activation: "none",
// "gelu", "gelu_tanh", "relu", "tanh" or "silu"; compute: "fp32" or "int8".
// 0: done; else one line in `error`.
SMP_EXPORT int smp_engine_linear(const uint8_t* blob, size_t blob_size, const float* bias,
                                 const char* activation, const char* compute, const float* x,
                                 size_t tokens, const float* residual, const float* gamma,
                                 const float* beta, float epsilon, float* y, int threads,
                                 char* error, size_t error_size);

// What all operators of all sessions in this process do, as JSON: {"isa": ..., "nodes": [{"node":
// ..., "op": ..., "plan": [...], "profile": {"stage": seconds}}]}. Returns the size it needs, the
// final 0 included, and writes only if `size` is enough.
SMP_EXPORT size_t smp_engine_report(char* json, size_t size);

// Profiles count from now on.
SMP_EXPORT void smp_engine_reset_profile(void);

// From now on all operators of the process run on `threads` threads of their own (callers count as
// well), which sleep when idle, and not on those of their sessions; 0: on their sessions' again.
// Before the library is unloaded it must be 0 again. 0: done.
SMP_EXPORT int smp_engine_share_threads(int threads);

// How many matrices, made ready for a kernel, the sessions of this process hold; equal ones count
// once.
SMP_EXPORT size_t smp_engine_products_held(void);

#ifdef __cplusplus
}
#endif
