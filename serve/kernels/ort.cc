#include "ort.h"

#include <cmath>
#include <memory>

#include "tasks.h"
#include "thread_pool.h"

namespace smp {
namespace {

// Asks twice: for the size, and for the text.
template <typename Read>
std::string ReadText(const ort::Api* api, Read read) {
  size_t size = 0;
  Check(api, read(nullptr, &size));
  std::string text(size, '\0');
  if (size > 0) {
    Check(api, read(&text[0], &size));
    text.resize(size - 1);  // the final 0
  }
  return text;
}

struct Released {
  const ort::Api* api;
  void operator()(ort::TensorInfo* info) const { ort::kReleaseTensorInfo(api, info); }
};
using OwnedTensorInfo = std::unique_ptr<ort::TensorInfo, Released>;

Dims GetDims(const ort::Api* api, const ort::TensorInfo* info) {
  size_t rank = 0;
  Check(api, ort::kGetDimensionsCount(api, info, &rank));
  Dims dims(rank);
  if (rank > 0) Check(api, ort::kGetDimensions(api, info, dims.data(), rank));
  return dims;
}

struct TypedTensor {
  ConstTensor tensor;
  int type = ort::kUndefined;
};

TypedTensor ReadTensor(const ort::Api* api, const ort::Value* value) {
  ort::TensorInfo* info = nullptr;
  Check(api, ort::kGetTensorTypeAndShape(api, value, &info));
  const OwnedTensorInfo owned(info, Released{api});
  TypedTensor typed;
  Check(api, ort::kGetTensorElementType(api, info, &typed.type));
  typed.tensor.dims = GetDims(api, info);
  void* data = nullptr;
  // The function takes only mutable tensors; we do not write.
  Check(api, ort::kGetTensorMutableData(api, const_cast<ort::Value*>(value), &data));
  typed.tensor.data = data;
  return typed;
}

const char* TypeText(ort::ElementType type) {
  return type == ort::kFloat ? "float" : type == ort::kUint8 ? "uint8" : "int64";
}

}  // namespace

std::string ToText(const Dims& dims) {
  std::string text;
  for (const int64_t dim : dims) text += (text.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + text + "]";
}

size_t ElementCount(const Dims& dims, size_t count) {
  size_t product = 1;
  for (size_t i = 0; i < count; ++i) product *= static_cast<size_t>(dims[i]);
  return product;
}

void Check(const ort::Api* api, ort::Status* status) {
  if (status == nullptr) return;
  const std::string text = ort::kGetErrorMessage(api, status);
  ort::kReleaseStatus(api, status);
  throw std::runtime_error(text);
}

std::string NodeInfo::Name() const {
  return ReadText(
      api_, [&](char* out, size_t* size) { return ort::kInfoGetNodeName(api_, info_, out, size); });
}

int64_t NodeInfo::Int(const char* name, int64_t least, int64_t most) const {
  int64_t value = 0;
  if (ort::Status* status = ort::kGetAttributeInt(api_, info_, name, &value)) {
    ort::kReleaseStatus(api_, status);
    throw std::invalid_argument(std::string("needs the attribute ") + name + " (int)");
  }
  if (value < least || value > most) {
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + "; expected " +
                                std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

float NodeInfo::Float(const char* name) const {
  float value = 0.0f;
  if (ort::Status* status = ort::kGetAttributeFloat(api_, info_, name, &value)) {
    ort::kReleaseStatus(api_, status);
    throw std::invalid_argument(std::string("needs the attribute ") + name + " (float)");
  }
  if (!std::isfinite(value)) throw std::invalid_argument(std::string(name) + " is not finite");
  return value;
}

std::string NodeInfo::String(const char* name) const {
  try {
    return ReadText(api_, [&](char* out, size_t* size) {
      return ort::kGetAttributeString(api_, info_, name, out, size);
    });
  } catch (const std::runtime_error&) {
    throw std::invalid_argument(std::string("needs the attribute ") + name + " (string)");
  }
}

size_t NodeInfo::InputCount() const {
  size_t count = 0;
  Check(api_, ort::kInfoGetInputCount(api_, info_, &count));
  return count;
}

bool NodeInfo::HasInput(size_t index) const {
  if (index >= InputCount()) return false;
  return !ReadText(api_, [&](char* out, size_t* size) {
            return ort::kInfoGetInputName(api_, info_, index, out, size);
          }).empty();
}

ConstTensor NodeInfo::Constant(size_t index, const std::string& label, ort::ElementType type,
                               size_t rank) const {
  int is_constant = 0;
  const ort::Value* value = nullptr;
  if (HasInput(index)) {
    Check(api_, ort::kInfoGetConstantInput(api_, info_, index, &is_constant, &value));
  }
  if (is_constant == 0 || value == nullptr) {
    throw std::invalid_argument("input " + label + " must be a constant initializer");
  }
  const TypedTensor typed = ReadTensor(api_, value);
  if (typed.type != type || typed.tensor.dims.size() != rank) {
    throw std::invalid_argument("input " + label + " must be a " + TypeText(type) +
                                " tensor with " + std::to_string(rank) +
                                " dimension(s); its shape is " + ToText(typed.tensor.dims));
  }
  return typed.tensor;
}

std::vector<float> NodeInfo::Vector(size_t index, const std::string& label, size_t length) const {
  const ConstTensor tensor = Constant(index, label, ort::kFloat, 1);
  if (ElementCount(tensor.dims, 1) != length) {
    throw std::invalid_argument("input " + label + " has " + std::to_string(tensor.dims[0]) +
                                " elements; expected " + std::to_string(length));
  }
  const float* data = static_cast<const float*>(tensor.data);
  return std::vector<float>(data, data + length);
}

void RunContext::Log(const std::string& message) const {
  static constexpr ort::PathCharacter kNoFile[] = {'s', 'm', 'p', 0};
  const ort::Logger* logger = nullptr;
  Check(api_, ort::kContextGetLogger(api_, context_, &logger));
  Check(api_, ort::kLogMessage(api_, logger, ort::kInfoSeverity, message.c_str(), kNoFile, 0, ""));
}

std::optional<ConstTensor> RunContext::Input(size_t index) const {
  size_t count = 0;
  Check(api_, ort::kContextGetInputCount(api_, context_, &count));
  if (index >= count) return std::nullopt;
  const ort::Value* value = nullptr;
  Check(api_, ort::kContextGetInput(api_, context_, index, &value));
  if (value == nullptr) return std::nullopt;
  return ReadTensor(api_, value).tensor;
}

float* RunContext::Output(size_t index, const Dims& dims) const {
  ort::Value* value = nullptr;
  Check(api_, ort::kContextGetOutput(api_, context_, index, dims.data(), dims.size(), &value));
  void* data = nullptr;
  Check(api_, ort::kGetTensorMutableData(api_, value, &data));
  return static_cast<float*>(data);
}

void SessionParallel::For(size_t count, const std::function<void(size_t)>& fn) const {
  if (count == 0) return;
  if (count == 1) return fn(0);
  Tasks tasks(fn);
  if (const auto pool = ThreadPool::Shared()) {
    pool->For(count, [&](size_t index) { tasks.Run(index); });
    return tasks.Rethrow();
  }
  const auto run = [](void* user, size_t index) { static_cast<Tasks*>(user)->Run(index); };
  // As many batches as tasks: each thread takes the next one when it is done with its last.
  Check(api_, ort::kParallelFor(api_, context_, run, count, count, &tasks));
  tasks.Rethrow();
}

const ort::Attribute* ShapeInfo::Attribute(const char* name) const {
  const ort::Attribute* attribute = nullptr;
  if (ort::Status* status = ort::kShapeGetAttribute(api_, context_, name, &attribute)) {
    ort::kReleaseStatus(api_, status);
    throw std::invalid_argument(std::string("needs the attribute ") + name);
  }
  return attribute;
}

int64_t ShapeInfo::Int(const char* name) const {
  int64_t value = 0;
  size_t used = 0;
  Check(api_, ort::kReadAttribute(api_, Attribute(name), ort::kAttributeInt, &value, sizeof value,
                                  &used));
  return value;
}

std::string ShapeInfo::String(const char* name) const {
  char text[64] = "";
  size_t used = 0;
  Check(api_, ort::kReadAttribute(api_, Attribute(name), ort::kAttributeString, text,
                                  sizeof text - 1, &used));
  return text;
}

std::vector<SymbolicDim> ShapeInfo::Input(size_t index) const {
  size_t inputs = 0;
  Check(api_, ort::kShapeGetInputCount(api_, context_, &inputs));
  if (index >= inputs) return {};
  ort::TensorInfo* info = nullptr;
  Check(api_, ort::kShapeGetInput(api_, context_, index, &info));
  const Dims values = GetDims(api_, info);
  std::vector<const char*> names(values.size(), nullptr);
  if (!names.empty()) {
    Check(api_, ort::kGetSymbolicDimensions(api_, info, names.data(), names.size()));
  }
  std::vector<SymbolicDim> dims(values.size());
  for (size_t i = 0; i < dims.size(); ++i) {
    dims[i].value = values[i];
    if (names[i] != nullptr) dims[i].symbol = names[i];
  }
  return dims;
}

void ShapeInfo::SetOutput(size_t index, const std::vector<SymbolicDim>& dims) const {
  Dims values;
  std::vector<const char*> names;
  for (const SymbolicDim& dim : dims) {
    if (dim.value < 0 && dim.symbol.empty()) return;
    values.push_back(dim.value);
    names.push_back(dim.value < 0 ? dim.symbol.c_str() : "");
  }
  ort::TensorInfo* info = nullptr;
  Check(api_, ort::kCreateTensorInfo(api_, &info));
  const OwnedTensorInfo owned(info, Released{api_});
  Check(api_, ort::kSetTensorElementType(api_, info, ort::kFloat));
  Check(api_, ort::kSetDimensions(api_, info, values.data(), values.size()));
  Check(api_, ort::kSetSymbolicDimensions(api_, info, names.data(), names.size()));
  Check(api_, ort::kShapeSetOutput(api_, context_, index, info));
}

}  // namespace smp
