// ONNX Runtime's C ABI for custom operators, as far as we use it: opaque handles, the numbers of
// the functions in its table, and the struct that describes an operator. The ABI is public and only
// ever appended to; tests/serve/test_linear_op.py and test_encoder_op.py use every slot.
#pragma once

#include <cstddef>
#include <cstdint>

namespace smp::ort {

// The oldest interface that has all that is below: ONNX Runtime 1.18.
constexpr uint32_t kApiVersion = 18;

// Handles that belong to ONNX Runtime.
struct Status;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
struct ShapeContext;
struct Attribute;
struct Logger;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kUndefined = 0, kFloat = 1, kUint8 = 2, kInt64 = 7 };
enum Characteristic : int { kRequired = 0, kOptional = 1, kVariadic = 2 };
enum AttributeType : int { kAttributeInt = 1, kAttributeString = 5 };

// The table of functions: one pointer a slot, without gaps. Reached through Function below.
struct Api;

struct ApiBase {
  const Api* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// A function of the table. Those that return Status* give null on success.
template <typename Signature>
struct Function;

template <typename Result, typename... Arguments>
struct Function<Result(Arguments...)> {
  size_t index;

  Result operator()(const Api* api, Arguments... arguments) const {
    using Slot = Result (*)(Arguments...);
    return reinterpret_cast<const Slot*>(api)[index](arguments...);
  }
};

constexpr Function<Status*(int code, const char* message)> kCreateStatus{0};
constexpr Function<const char*(const Status*)> kGetErrorMessage{2};
constexpr Function<Status*(const char* domain, CustomOpDomain** out)> kCreateCustomOpDomain{26};
constexpr Function<Status*(CustomOpDomain*, const struct CustomOp*)> kCustomOpDomainAdd{27};
constexpr Function<Status*(SessionOptions*, CustomOpDomain*)> kAddCustomOpDomain{28};
constexpr Function<Status*(Value*, void** out)> kGetTensorMutableData{51};
constexpr Function<Status*(TensorInfo** out)> kCreateTensorInfo{57};
constexpr Function<Status*(TensorInfo*, int type)> kSetTensorElementType{58};
constexpr Function<Status*(TensorInfo*, const int64_t* dims, size_t count)> kSetDimensions{59};
constexpr Function<Status*(const TensorInfo*, int* out)> kGetTensorElementType{60};
constexpr Function<Status*(const TensorInfo*, size_t* out)> kGetDimensionsCount{61};
constexpr Function<Status*(const TensorInfo*, int64_t* dims, size_t count)> kGetDimensions{62};
constexpr Function<Status*(const TensorInfo*, const char** names, size_t count)>
    kGetSymbolicDimensions{63};
constexpr Function<Status*(const Value*, TensorInfo** out)> kGetTensorTypeAndShape{65};
constexpr Function<Status*(const KernelInfo*, const char* name, float* out)> kGetAttributeFloat{85};
constexpr Function<Status*(const KernelInfo*, const char* name, int64_t* out)> kGetAttributeInt{86};
// Texts: with a null `out` only the size is set, the final 0 included.
constexpr Function<Status*(const KernelInfo*, const char* name, char* out, size_t* size)>
    kGetAttributeString{87};
constexpr Function<Status*(const KernelContext*, size_t* out)> kContextGetInputCount{88};
constexpr Function<Status*(const KernelContext*, size_t index, const Value** out)> kContextGetInput{
    90};
constexpr Function<Status*(KernelContext*, size_t index, const int64_t* dims, size_t count,
                           Value** out)>
    kContextGetOutput{91};
constexpr Function<void(Status*)> kReleaseStatus{93};
constexpr Function<void(TensorInfo*)> kReleaseTensorInfo{99};
constexpr Function<Status*(const KernelInfo*, size_t* out)> kInfoGetInputCount{230};
// An optional input that the node leaves out has the empty name.
constexpr Function<Status*(const KernelInfo*, size_t index, char* out, size_t* size)>
    kInfoGetInputName{232};
constexpr Function<Status*(const KernelInfo*, char* out, size_t* size)> kInfoGetNodeName{244};
constexpr Function<Status*(const KernelContext*, const Logger** out)> kContextGetLogger{246};
#ifdef _WIN32
using PathCharacter = wchar_t;
#else
using PathCharacter = char;
#endif
constexpr int kInfoSeverity = 1;
constexpr Function<Status*(const Logger*, int severity, const char* message,
                           const PathCharacter* file, int line, const char* function)>
    kLogMessage{247};
constexpr Function<Status*(const KernelInfo*, size_t index, int* is_constant, const Value** out)>
    kInfoGetConstantInput{249};
constexpr Function<Status*(const ShapeContext*, size_t* out)> kShapeGetInputCount{267};
// What it gives stays the context's: it is not released.
constexpr Function<Status*(const ShapeContext*, size_t index, TensorInfo** out)> kShapeGetInput{
    268};
constexpr Function<Status*(const ShapeContext*, const char* name, const Attribute** out)>
    kShapeGetAttribute{269};
constexpr Function<Status*(const ShapeContext*, size_t index, const TensorInfo*)> kShapeSetOutput{
    270};
constexpr Function<Status*(TensorInfo*, const char** names, size_t count)> kSetSymbolicDimensions{
    271};
constexpr Function<Status*(const Attribute*, int type, void* out, size_t size, size_t* used)>
    kReadAttribute{272};
constexpr Function<Status*(const KernelContext*, void (*task)(void* user, size_t index),
                           size_t total, size_t batches, void* user)>
    kParallelFor{274};

// Describes an operator; ONNX Runtime reads the fields that `version` says are there. A null
// function stands for ONNX Runtime's default where it has one.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);  // null: CPU
  int (*GetInputType)(const CustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const CustomOp*);
  int (*GetOutputType)(const CustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, KernelContext*);
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const CustomOp*, size_t index);
  int (*GetOutputCharacteristic)(const CustomOp*, size_t index);
  int (*GetInputMemoryType)(const CustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  // These three return errors; they replace the calls above that cannot.
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShape)(const CustomOp*, ShapeContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};

}  // namespace smp::ort
