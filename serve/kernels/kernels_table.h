// The kernels, written once over the vectors of one instruction set (vec_*.h, included first).
#pragma once

#include "kernels.h"
#include "kernels_attention.h"
#include "kernels_layout.h"
#include "kernels_products.h"
#include "kernels_tokens.h"

namespace smp {
namespace {

KernelTable MakeTable(Isa isa) {
  KernelTable table{};
  table.isa = isa;
  table.min_max = MinMax;
  table.quantize_parameters = QuantizeParameters;
  table.quantize_rows = QuantizeRows;
  table.quantize_quads = QuantizeQuads;
  table.sparse_int8 = SparseInt8Product;
  table.dense_int8 = DenseProduct<DenseInt8, const QuantizedTile&>;
  table.sparse_fp32 = SparseFp32Product;
  table.dense_fp32 = DenseProduct<DenseFp32, const float*>;
  table.layer_norm = LayerNorm;
  table.pack = Pack;
  table.unpack = Unpack;
  table.attention_int8 = {
      StoreQueryInt8, StoreKeyInt8, StoreValueInt16,
      RunAttention<AttentionInt8Blocks<kAttentionBlocks>, AttentionInt8Blocks<1>>};
  table.attention_fp32 = {
      StoreQueryFp32, StoreKeyFp32, StoreValueFp32,
      RunAttention<AttentionFp32Blocks<kAttentionBlocks>, AttentionFp32Blocks<1>>};
  return table;
}

}  // namespace
}  // namespace smp
