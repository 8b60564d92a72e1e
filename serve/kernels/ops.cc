// The library's entry for ONNX Runtime: adds the domain `smp` to a session's options.
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <string>

#include "c_api.h"
#include "cpu.h"
#include "custom_op.h"
#include "encoder_op.h"
#include "linear_op.h"

namespace smp {
namespace {

// Before 1.24, ONNX Runtime crashes when it asks for the shapes of a node that leaves an optional
// input out. Without the function it does not know our outputs' shapes, and needs them for nothing.
bool CanInferShapes(const char* runtime_version) {
  int major = 0, minor = 0;
  if (std::sscanf(runtime_version, "%d.%d", &major, &minor) != 2) return false;
  return major > 1 || (major == 1 && minor >= 24);
}

// The domain is made once and never released: sessions keep pointers into it.
ort::CustomOpDomain* Domain(const ort::Api* api, const char* runtime_version) {
  static std::mutex mutex;
  static ort::CustomOpDomain* domain = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (domain == nullptr) {
    const bool infer_shapes = CanInferShapes(runtime_version);
    static const OpFor<LinearKernel> linear(api, infer_shapes);
    static const OpFor<EncoderKernel> encoder(api, infer_shapes);
    ort::CustomOpDomain* made = nullptr;
    Check(api, ort::kCreateCustomOpDomain(api, "smp", &made));
    Check(api, ort::kCustomOpDomainAdd(api, made, &linear));
    Check(api, ort::kCustomOpDomainAdd(api, made, &encoder));
    domain = made;
  }
  return domain;
}

ort::Status* Register(ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->GetApi(ort::kApiVersion);
  if (api == nullptr) {
    const std::string text = "libsmp_engine needs ONNX Runtime 1.18 or newer; this is " +
                             std::string(base->GetVersionString());
    const ort::Api* oldest = base->GetApi(1);
    if (oldest != nullptr) return ort::kCreateStatus(oldest, ort::kFail, text.c_str());
    std::fprintf(stderr, "%s\n", text.c_str());  // nothing to make a status with
    return nullptr;
  }
  return Guard(api, "libsmp_engine: ", [&] {
    ActiveIsa();  // a wrong SMP_ENGINE_ISA is told here, before any model is read
    Check(api, ort::kAddCustomOpDomain(api, options, Domain(api, base->GetVersionString())));
  });
}

}  // namespace
}  // namespace smp

extern "C" SMP_EXPORT smp::ort::Status* RegisterCustomOps(smp::ort::SessionOptions* options,
                                                          const smp::ort::ApiBase* base) {
  return smp::Register(options, base);
}
