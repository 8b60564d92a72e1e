#include "c_api.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu.h"
#include "engine.h"
#include "options.h"
#include "product.h"
#include "registry.h"
#include "tasks.h"
#include "thread_pool.h"

namespace smp {
namespace {

constexpr int kMaxThreads = 1024;

// Starts its threads anew for every call: enough for tests and single calls.
class ThreadParallel final : public Parallel {
 public:
  explicit ThreadParallel(size_t threads) : threads_(threads) {}

  void For(size_t count, const std::function<void(size_t)>& fn) const override {
    Tasks tasks(fn);
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) tasks.Run(i);
    };
    std::vector<std::thread> others;
    others.reserve(threads_);
    try {
      while (others.size() + 1 < std::min(threads_, count)) others.emplace_back(work);
    } catch (const std::system_error&) {  // the system has no more threads: fewer do it too
    }
    work();
    for (std::thread& thread : others) thread.join();
    tasks.Rethrow();
  }

 private:
  const size_t threads_;
};

void CopyText(const char* text, char* out, size_t size) {
  if (out == nullptr || size == 0) return;
  const size_t length = std::min(std::strlen(text), size - 1);
  std::memcpy(out, text, length);
  out[length] = '\0';
}

template <typename Body>
int Guarded(char* error, size_t error_size, Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    CopyText("not enough memory", error, error_size);
  } catch (const std::exception& e) {
    CopyText(e.what(), error, error_size);
  } catch (...) {
    CopyText("unknown error", error, error_size);
  }
  return 1;
}

std::shared_ptr<const Weights> Decoded(const uint8_t* blob, size_t blob_size) {
  if (blob == nullptr) throw std::invalid_argument("weights: null");
  std::string error;
  auto weights = DecodeWeights(blob, blob_size, &error);
  if (!weights) throw std::invalid_argument("weights: " + error);
  return weights;
}

std::vector<float> Copied(const float* data, size_t count) {
  return data == nullptr ? std::vector<float>() : std::vector<float>(data, data + count);
}

void DecodeDense(const Weights& weights, float* out, size_t size) {
  const uint64_t needed = static_cast<uint64_t>(weights.rows) * weights.columns;
  if (size != needed) {
    throw std::invalid_argument("dense_out has " + std::to_string(size) + " elements; expected " +
                                std::to_string(needed));
  }
  std::fill_n(out, size, 0.0f);
  for (size_t row = 0; row < weights.rows; ++row) {
    for (size_t i = weights.row_start[row]; i < weights.row_start[row + 1]; ++i) {
      out[row * weights.columns + weights.column[i]] =
          weights.scale.empty() ? weights.values[i]
                                : static_cast<float>(weights.quantized[i]) * weights.scale[row];
    }
  }
}

std::string ReportJson() {
  const char* isa = smp_engine_isa();
  return "{\"isa\": " + (isa == nullptr ? "null" : JsonText(isa)) +
         ", \"nodes\": " + LiveNodesJson() + "}";
}

}  // namespace
}  // namespace smp

extern "C" {

int smp_engine_version(void) { return 1; }

const char* smp_engine_isa(void) {
  try {
    return smp::Name(smp::ActiveIsa());
  } catch (...) {
    return nullptr;
  }
}

int smp_engine_force_isa(const char* isa) {
  return smp::Guarded(nullptr, 0, [&] {
    const auto found = smp::IsaFromName(isa == nullptr ? "" : isa);
    if (!found) throw std::invalid_argument("unknown instruction set");
    smp::ForceIsa(*found);
  });
}

int smp_engine_supported(const char* isa) {
  int supported = 0;
  smp::Guarded(nullptr, 0, [&] {
    const auto found = smp::IsaFromName(isa == nullptr ? "" : isa);
    supported = found && smp::Supported(*found) ? 1 : 0;
  });
  return supported;
}

int smp_engine_decode(const uint8_t* blob, size_t blob_size, float* dense_out, size_t dense_size,
                      char* error, size_t error_size) {
  return smp::Guarded(error, error_size, [&] {
    smp::DecodeDense(*smp::Decoded(blob, blob_size), dense_out, dense_size);
  });
}

int smp_engine_linear(const uint8_t* blob, size_t blob_size, const float* bias,
                      const char* activation, const char* compute, const float* x, size_t tokens,
                      const float* residual, const float* gamma, const float* beta, float epsilon,
                      float* y, int threads, char* error, size_t error_size) {
  return smp::Guarded(error, error_size, [&] {
    if (activation == nullptr || compute == nullptr) {
      throw std::invalid_argument("activation and compute must be given");
    }
    if (threads < 1 || threads > smp::kMaxThreads) {
      throw std::invalid_argument("threads is " + std::to_string(threads) + "; expected 1 to " +
                                  std::to_string(smp::kMaxThreads));
    }
    if ((gamma == nullptr) != (beta == nullptr)) {
      throw std::invalid_argument("gamma and beta go together");
    }
    smp::LinearSpec linear;
    linear.name = "linear";
    linear.weights = smp::Decoded(blob, blob_size);
    linear.activation = smp::ActivationFromName(activation);
    linear.compute = smp::ComputeFromName(compute);
    const size_t rows = linear.weights->rows;
    linear.bias = smp::Copied(bias, rows);
    smp::NormSpec norm;
    norm.gamma = smp::Copied(gamma, rows);
    norm.beta = smp::Copied(beta, rows);
    norm.epsilon = epsilon;
    const auto layer = smp::Linear::Create(std::move(linear), std::move(norm));
    if (tokens == 0) return;
    if (x == nullptr || y == nullptr) throw std::invalid_argument("x and y must be given");
    layer->Run(x, tokens, residual, y, smp::ThreadParallel(static_cast<size_t>(threads)));
  });
}

size_t smp_engine_report(char* json, size_t size) {
  size_t needed = 0;
  smp::Guarded(nullptr, 0, [&] {
    const std::string report = smp::ReportJson();
    needed = report.size() + 1;
    if (json != nullptr && size >= needed) std::memcpy(json, report.c_str(), needed);
  });
  return needed;
}

void smp_engine_reset_profile(void) { smp::Guarded(nullptr, 0, smp::ResetProfiles); }

int smp_engine_share_threads(int threads) {
  return smp::Guarded(nullptr, 0, [&] {
    if (threads < 0) throw std::invalid_argument("threads must not be negative");
    smp::ThreadPool::Share(static_cast<size_t>(threads));
  });
}

size_t smp_engine_products_held(void) {
  size_t count = 0;
  smp::Guarded(nullptr, 0, [&] { count = smp::Product::Held(); });
  return count;
}

}  // extern "C"
