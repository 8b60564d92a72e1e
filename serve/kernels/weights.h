// The sparse weights of one matrix, as they lie in a model file and as the kernels take them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hash.h"

namespace smp {

// One pruned matrix, rows = output features, in compressed sparse rows. Either `quantized` (with
// `scale`, one a row) or `values` is filled, in the order of `columns`.
struct Weights {
  uint32_t rows = 0;
  uint32_t columns = 0;
  std::vector<uint32_t> row_start;  // [rows + 1], the last one is the number of non-zeros
  std::vector<uint16_t> column;     // [non-zeros], ascending within a row
  std::vector<int8_t> quantized;    // [non-zeros] or empty
  std::vector<float> scale;         // [rows] or empty: weight = quantized * scale[row]
  std::vector<float> values;        // [non-zeros] or empty
  Hash128 hash;                     // of the encoded bytes: equal ones are shared

  size_t nonzeros() const { return column.size(); }
};

// Decodes the "SMPW" encoding (docs/runtime.md). Every size and offset is checked against
// `size` before use. Returns null and sets `*error` to one line on bad input.
std::shared_ptr<const Weights> DecodeWeights(const uint8_t* data, size_t size, std::string* error);

}  // namespace smp
