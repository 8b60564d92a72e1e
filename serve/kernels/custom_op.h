// Makes ONNX Runtime's description of an operator out of a class.
#pragma once

#include <atomic>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>

#include "cpu.h"
#include "ort.h"
#include "ort_abi.h"

namespace smp {

struct OpInput {
  ort::ElementType type;  // kUndefined: any, also different ones (variadic)
  ort::Characteristic characteristic;
};

// Kernel has: static constexpr const char* kName; static constexpr OpInput kInputs[];
// Kernel(const NodeInfo&); void Compute(const RunContext&, const Parallel&) const, which runs on
// several threads at once; static void InferShape(const ShapeInfo&). All may throw, but ONNX
// Runtime drops what InferShape throws: wrong shapes are told by Compute.
template <typename Kernel>
class OpFor : public ort::CustomOp {
 public:
  OpFor(const ort::Api* api, bool infer_shapes) : ort::CustomOp{}, api_(api) {
    version = ort::kApiVersion;
    GetName = [](const CustomOp*) { return Kernel::kName; };
    GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };
    GetInputType = [](const CustomOp*, size_t i) -> int { return Kernel::kInputs[i].type; };
    GetInputTypeCount = [](const CustomOp*) { return std::size(Kernel::kInputs); };
    GetOutputType = [](const CustomOp*, size_t) -> int { return ort::kFloat; };
    GetOutputTypeCount = [](const CustomOp*) -> size_t { return 1; };
    KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
    GetInputCharacteristic = [](const CustomOp*, size_t i) -> int {
      return Kernel::kInputs[i].characteristic;
    };
    GetOutputCharacteristic = [](const CustomOp*, size_t) -> int { return ort::kRequired; };
    GetInputMemoryType = [](const CustomOp*, size_t) -> int { return 0; };
    GetVariadicInputMinArity = [](const CustomOp*) { return 1; };
    GetVariadicInputHomogeneity = [](const CustomOp*) { return 0; };
    GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
    GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
    CreateKernelV2 = Create;
    KernelComputeV2 = Run;
    if (infer_shapes) InferOutputShape = Infer;
    GetStartVersion = [](const CustomOp*) { return 1; };
    GetEndVersion = [](const CustomOp*) { return std::numeric_limits<int>::max(); };
  }

 private:
  struct Instance {
    Instance(const ort::Api* api_used, const NodeInfo& info)
        : api(api_used), name(info.Name()), kernel(info) {}
    const ort::Api* api;
    const std::string name;
    const Kernel kernel;
    mutable std::atomic<bool> logged{false};
  };

  static ort::Status* Create(const CustomOp*, const ort::Api* api, const ort::KernelInfo* info,
                             void** out) {
    *out = nullptr;
    return Guard(api, "", [&] {
      const NodeInfo node(api, info);
      const std::string label = std::string(Kernel::kName) + " node '" + node.Name() + "': ";
      Check(api, Guard(api, label, [&] { *out = new Instance(api, node); }));
    });
  }

  // ONNX Runtime puts the operator's and the node's name in front.
  static ort::Status* Run(void* instance, ort::KernelContext* context) {
    const auto& self = *static_cast<const Instance*>(instance);
    return Guard(self.api, "", [&] {
      const RunContext run(self.api, context);
      if (!self.logged.exchange(true)) {
        run.Log(std::string(Kernel::kName) + " node '" + self.name + "' uses the instruction set " +
                Name(ActiveIsa()));
      }
      self.kernel.Compute(run, SessionParallel(self.api, context));
    });
  }

  static ort::Status* Infer(const CustomOp* op, ort::ShapeContext* context) {
    const ort::Api* api = static_cast<const OpFor*>(op)->api_;
    return Guard(api, std::string(Kernel::kName) + ": ",
                 [&] { Kernel::InferShape(ShapeInfo(api, context)); });
  }

  const ort::Api* api_;
};

}  // namespace smp
