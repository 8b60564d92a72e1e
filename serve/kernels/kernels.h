// The compute kernels: one table of functions an instruction set. All work on tiles.
//
// A tile is up to 64 tokens, features first: float [features][width], width 16, 32 or 64 tokens.
// Feature-first, every token is a vector lane: a sparse weight is one broadcast, and
// normalisation, softmax and quantisation run across lanes without any shuffle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu.h"
#include "engine.h"

namespace smp {

constexpr size_t kMaxWidth = 64;

// Eight-bit activations of one tile. value = scale[token] * byte - offset[token].
struct QuantizedTile {
  const uint8_t* bytes;
  const float* scale;   // [width]
  const float* offset;  // [width], zero point times scale
};

// What is done with the products of one row before they are stored.
struct Epilogue {
  const float* bias;  // [rows] or null
  Activation activation;
  bool approximate;       // activations to 1e-4, not to rounding: what int8 can resolve
  const float* residual;  // tile [rows][width] or null
  float* out;             // tile [rows][width]
};

// Sparse int8: four non-zeros of a row a group, rows padded with zero weights. Where features of a
// row lie close enough, each is a byte, else 16 bits.
struct SparseInt8 {
  struct CloseGroup {
    uint8_t step[4];  // ascending: from the last feature of the group before, or from 0
    uint32_t weight;  // four int8, the first in the low byte
  };
  size_t rows = 0, columns = 0;
  std::vector<uint32_t> group_start;  // [rows + 1]
  std::vector<CloseGroup> close;      // [groups], or empty and the two below are filled
  std::vector<uint16_t> index;        // [4 * groups], the feature of each weight
  std::vector<uint32_t> weight;       // [groups], as above
  std::vector<float> scale;           // [rows]
  std::vector<float> sum;             // [rows], scale times the sum of the row's weights
};

// Dense int8: row blocks of kRows, four consecutive features a word.
struct DenseInt8 {
  static constexpr size_t kRows = 4;
  size_t rows = 0, columns = 0;
  std::vector<uint32_t> weight;   // [row blocks][ceil(columns / 4)][kRows]
  std::vector<float> scale, sum;  // [rows]
};

// Sparse fp32: compressed rows, cut into blocks of features so that activations stay in cache.
struct SparseFp32 {
  static constexpr size_t kBlock = 128;  // features a block
  size_t rows = 0, columns = 0;
  std::vector<uint32_t> start;  // [blocks][rows] then the end
  std::vector<uint16_t> index;  // feature within its block
  std::vector<float> weight;
};

struct DenseFp32 {
  static constexpr size_t kRows = 4;
  size_t rows = 0, columns = 0;
  std::vector<float> weight;  // [row blocks][columns][kRows]
};

// One attention task: up to 64 queries of one sequence and one head against all its keys.
// Positions are those of the packed tokens; tile columns are positions modulo the tile.
struct AttentionTask {
  const void* query;         // this head's [position / 16][head size][16], fp32 or quads of int8
  const float* query_scale;  // [positions] (int8 only)
  const void* key;           // this head's [position][head size]
  const float* key_scale;    // [positions] (int8 only)
  const float* key_offset;   // [positions] (int8 only)
  const void* value;         // this head's [head size][stride], fp32 or int16
  const float* value_scale;  // [positions] (int16 only)
  size_t value_stride;
  size_t head_size;
  size_t first_key, keys;       // the sequence
  size_t first_block;           // of 16 queries, over all positions
  size_t blocks;                // 1 to 4
  size_t first_query, queries;  // results are stored for these positions only
  float scale;
  float* scratch;        // AttentionScratch(keys) floats, aligned to 64 bytes
  float* out[4];         // per block: [head size] rows of 16 tokens
  size_t out_stride[4];  // floats between features
};

constexpr size_t AttentionScratch(size_t keys) { return (keys + 2) * 64; }

// One form of attention. The buffers are one head's own; `position` is that of the tile's first
// token, x a tile [head size][width].
struct Attention {
  void (*store_query)(const float* x, size_t head_size, size_t width, size_t position, void* query,
                      float* query_scale);
  void (*store_key)(const float* x, size_t head_size, size_t width, size_t position, void* key,
                    float* key_scale, float* key_offset);
  void (*store_value)(const float* x, size_t head_size, size_t width, size_t position, void* value,
                      size_t value_stride, float* value_scale);
  void (*run)(const AttentionTask& task);
};

struct KernelTable {
  Isa isa;

  // Per-token minimum and maximum of 16 columns of a tile (x points at the first), at most and at
  // least 0; the maximum of a token with NaN or infinity is NaN.
  void (*min_max)(const float* x, size_t features, size_t width, float* minimum, float* maximum);
  // Asymmetric parameters of `width` tokens from their minimum and maximum.
  void (*quantize_parameters)(const float* minimum, const float* maximum, size_t width,
                              float* inverse, float* zero, float* scale, float* offset);
  // Rows for SparseInt8: bytes [features][width].
  void (*quantize_rows)(const float* x, size_t features, size_t width, const float* inverse,
                        const float* zero, uint8_t* bytes);
  // For DenseInt8: bytes [ceil(features / 4)][width][4].
  void (*quantize_quads)(const float* x, size_t features, size_t width, const float* inverse,
                         const float* zero, uint8_t* bytes);

  void (*sparse_int8)(const SparseInt8& w, size_t row0, size_t row1, size_t width,
                      const QuantizedTile& x, const Epilogue& e);
  void (*dense_int8)(const DenseInt8& w, size_t row0, size_t row1, size_t width,
                     const QuantizedTile& x, const Epilogue& e);
  void (*sparse_fp32)(const SparseFp32& w, size_t row0, size_t row1, size_t width, const float* x,
                      const Epilogue& e);
  void (*dense_fp32)(const DenseFp32& w, size_t row0, size_t row1, size_t width, const float* x,
                     const Epilogue& e);

  // In place over 16 columns of a tile (x points at the first), then their minimum and maximum.
  void (*layer_norm)(float* x, size_t features, size_t width, const float* gamma, const float* beta,
                     float epsilon, float* minimum, float* maximum);

  // tokens: pointers to `count` <= width rows of `features` floats; missing ones become zeros.
  void (*pack)(const float* const* tokens, size_t count, size_t features, size_t width, float* x);
  // The reverse for features [0, features): tokens[i][f] = x[f][column0 + i]; null ones skipped.
  void (*unpack)(const float* x, size_t features, size_t width, size_t count, float* const* tokens);

  // Beside int8 products: scores from int8 queries and keys, int16 values. Both per token.
  Attention attention_int8;
  Attention attention_fp32;
};

const KernelTable& ScalarKernels();
#if defined(__x86_64__) || defined(_M_X64)
const KernelTable& Avx2Kernels();
const KernelTable& Avx512Kernels();
const KernelTable& Avx512VnniKernels();
#elif defined(__aarch64__)
const KernelTable& NeonKernels();
const KernelTable& NeonDotKernels();
const KernelTable& NeonI8mmKernels();
#endif

// The table of an instruction set that the CPU supports.
const KernelTable& Kernels(Isa isa);

}  // namespace smp
