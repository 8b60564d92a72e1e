// ONNX Runtime's handles as C++ objects. What fails inside becomes an exception, and every
// exception becomes an OrtStatus in Guard: none leaves the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine.h"
#include "ort_abi.h"

namespace smp {

using Dims = std::vector<int64_t>;

// "[2, 3]"
std::string ToText(const Dims& dims);

// The product of dims[0 .. count).
size_t ElementCount(const Dims& dims, size_t count);

// Throws std::runtime_error with the status' text, and releases the status.
void Check(const ort::Api* api, ort::Status* status);

// Runs body; an exception becomes a status with `label` and its text.
template <typename Body>
ort::Status* Guard(const ort::Api* api, const std::string& label, Body body) noexcept {
  int code = ort::kFail;
  const char* text = "unknown error";
  try {
    try {
      body();
      return nullptr;
    } catch (const std::bad_alloc&) {
      text = "not enough memory";
    } catch (const std::invalid_argument& e) {
      return ort::kCreateStatus(api, ort::kInvalidArgument, (label + e.what()).c_str());
    } catch (const std::exception& e) {
      return ort::kCreateStatus(api, code, (label + e.what()).c_str());
    } catch (...) {
    }
    return ort::kCreateStatus(api, code, (label + text).c_str());
  } catch (...) {  // no memory left for the message
    return ort::kCreateStatus(api, code, text);
  }
}

struct ConstTensor {
  const void* data = nullptr;
  Dims dims;
};

// A node while its kernel is created.
class NodeInfo {
 public:
  NodeInfo(const ort::Api* api, const ort::KernelInfo* info) : api_(api), info_(info) {}

  std::string Name() const;
  // Attributes; a missing one, or one of another type, throws std::invalid_argument.
  int64_t Int(const char* name, int64_t least, int64_t most) const;
  float Float(const char* name) const;  // finite
  std::string String(const char* name) const;

  size_t InputCount() const;  // those left out in the middle are counted
  bool HasInput(size_t index) const;
  // An initializer of that type with `rank` dimensions; throws std::invalid_argument if it is
  // something else. `label` names it in the message.
  ConstTensor Constant(size_t index, const std::string& label, ort::ElementType type,
                       size_t rank) const;
  // The same for a float vector of that length.
  std::vector<float> Vector(size_t index, const std::string& label, size_t length) const;

 private:
  const ort::Api* api_;
  const ort::KernelInfo* info_;
};

// A node while it runs.
class RunContext {
 public:
  RunContext(const ort::Api* api, ort::KernelContext* context) : api_(api), context_(context) {}

  // Nothing if the node leaves that optional input out.
  std::optional<ConstTensor> Input(size_t index) const;
  float* Output(size_t index, const Dims& dims) const;
  // To the session's own logger, at the severity "info".
  void Log(const std::string& message) const;

 private:
  const ort::Api* api_;
  ort::KernelContext* context_;
};

// The session's own thread pool, or the one that all of the process share.
class SessionParallel final : public Parallel {
 public:
  SessionParallel(const ort::Api* api, const ort::KernelContext* context)
      : api_(api), context_(context) {}
  void For(size_t count, const std::function<void(size_t)>& fn) const override;

 private:
  const ort::Api* api_;
  const ort::KernelContext* context_;
};

// A dimension that may be known by its number or by its name only.
struct SymbolicDim {
  int64_t value = -1;
  std::string symbol;
};

// A node while the graph's shapes are worked out.
class ShapeInfo {
 public:
  ShapeInfo(const ort::Api* api, ort::ShapeContext* context) : api_(api), context_(context) {}

  int64_t Int(const char* name) const;
  std::string String(const char* name) const;
  // Empty if the rank is unknown (or 0, which looks the same here).
  std::vector<SymbolicDim> Input(size_t index) const;
  // Leaves the shape open if a dimension has neither number nor name.
  void SetOutput(size_t index, const std::vector<SymbolicDim>& dims) const;

 private:
  const ort::Attribute* Attribute(const char* name) const;

  const ort::Api* api_;
  ort::ShapeContext* context_;
};

}  // namespace smp
