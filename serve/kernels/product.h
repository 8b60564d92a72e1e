// A sparse matrix made ready for one kernel.
#pragma once

#include <memory>
#include <string>

#include "engine.h"
#include "kernels.h"

namespace smp {

enum class Kernel { kSparseInt8, kDenseInt8, kSparseFp32, kDenseFp32 };

const char* Name(Kernel kernel);

// What a product may read of one tile; only what its kernel needs is there.
struct TileInput {
  const float* values;
  QuantizedTile rows;   // for kSparseInt8
  QuantizedTile quads;  // for kDenseInt8
};

class Product {
 public:
  // Weights from a file have a hash: all sessions of the process share their product, as long as
  // one of them holds it.
  static std::shared_ptr<const Product> Make(const Weights& weights, Kernel kernel);
  // How many different ones are shared now.
  static size_t Held();

  Kernel kernel() const { return kernel_; }
  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  size_t nonzeros() const { return nonzeros_; }

  void Run(const KernelTable& table, size_t row0, size_t row1, size_t width, const TileInput& x,
           const Epilogue& epilogue) const;

 private:
  static std::shared_ptr<const Product> Build(const Weights& weights, Kernel kernel);

  Kernel kernel_ = Kernel::kSparseInt8;
  size_t rows_ = 0, columns_ = 0, nonzeros_ = 0;
  SparseInt8 sparse_int8_;
  DenseInt8 dense_int8_;
  SparseFp32 sparse_fp32_;
  DenseFp32 dense_fp32_;
};

}  // namespace smp
