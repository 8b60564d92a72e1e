#include "product.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <mutex>
#include <tuple>

namespace smp {
namespace {

// Close groups are taken if they are more by at most one in so many.
constexpr size_t kFewestFullGroups = 50;

// Symmetric int8 of one row: the file's own, or made here from floats.
struct Int8Row {
  std::vector<int8_t> values;
  float scale = 0.0f;
  float sum = 0.0f;  // scale times the sum
};

Int8Row QuantizedRow(const Weights& weights, size_t row) {
  const size_t begin = weights.row_start[row], end = weights.row_start[row + 1];
  Int8Row out;
  if (!weights.quantized.empty()) {
    out.values.assign(weights.quantized.begin() + static_cast<ptrdiff_t>(begin),
                      weights.quantized.begin() + static_cast<ptrdiff_t>(end));
    out.scale = weights.scale[row];
  } else {
    float largest = 0.0f;
    for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(weights.values[i]));
    out.scale = largest / 127.0f;
    for (size_t i = begin; i < end; ++i) {
      const float q = out.scale > 0.0f ? std::nearbyint(weights.values[i] / out.scale) : 0.0f;
      out.values.push_back(static_cast<int8_t>(std::max(-127.0f, std::min(127.0f, q))));
    }
  }
  int64_t sum = 0;
  for (const int8_t value : out.values) sum += value;
  out.sum = out.scale * static_cast<float>(sum);
  return out;
}

float FloatAt(const Weights& weights, size_t row, size_t i) {
  return weights.quantized.empty() ? weights.values[i]
                                   : weights.scale[row] * static_cast<float>(weights.quantized[i]);
}

uint32_t WordOf(const int8_t* bytes) {
  uint32_t word = 0;
  for (size_t i = 0; i < 4; ++i) {
    word |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  return word;
}

// How many of the weights whose columns are at `column` the next close group takes: up to four
// within 255 of `from`; none if the first is further, as then the group only gets closer.
size_t CloseCount(const uint16_t* column, size_t left, size_t from) {
  size_t count = 0;
  while (count < std::min<size_t>(left, 4) && column[count] - from <= 255) ++count;
  return count;
}

// Of four each, wherever they are; and of close ones.
struct GroupCounts {
  size_t far = 0, close = 0;
};

GroupCounts CountGroups(const Weights& weights) {
  GroupCounts groups;
  for (size_t row = 0; row < weights.rows; ++row) {
    const size_t end = weights.row_start[row + 1];
    groups.far += (end - weights.row_start[row] + 3) / 4;
    size_t from = 0;
    for (size_t i = weights.row_start[row]; i < end; ++groups.close) {
      const size_t count = CloseCount(&weights.column[i], end - i, from);
      i += count;
      from = count > 0 ? weights.column[i - 1] : from + 255;
    }
  }
  return groups;
}

void AddCloseRow(const Int8Row& values, const uint16_t* column, SparseInt8* out) {
  size_t from = 0;
  for (size_t i = 0; i < values.values.size();) {
    const size_t count = CloseCount(column + i, values.values.size() - i, from);
    const size_t last = count > 0 ? column[i + count - 1] : from + 255;
    int8_t bytes[4] = {};
    SparseInt8::CloseGroup group;
    for (size_t j = 0; j < 4; ++j) {
      if (j < count) bytes[j] = values.values[i + j];
      group.step[j] = static_cast<uint8_t>((j < count ? column[i + j] : last) - from);
    }
    group.weight = WordOf(bytes);
    out->close.push_back(group);
    i += count;
    from = last;
  }
}

void AddFarRow(const Int8Row& values, const uint16_t* column, SparseInt8* out) {
  for (size_t i = 0; i < values.values.size(); i += 4) {
    int8_t bytes[4] = {};
    for (size_t j = 0; j < 4; ++j) {
      const bool there = i + j < values.values.size();
      if (there) bytes[j] = values.values[i + j];
      out->index.push_back(column[there ? i + j : i]);
    }
    out->weight.push_back(WordOf(bytes));
  }
}

void BuildSparseInt8(const Weights& weights, SparseInt8* out) {
  out->rows = weights.rows;
  out->columns = weights.columns;
  const GroupCounts groups = CountGroups(weights);
  // A group takes its time however full it is; close ones save a third of the memory.
  const bool close = groups.close <= groups.far + groups.far / kFewestFullGroups;
  out->close.reserve(close ? groups.close : 0);
  out->index.reserve(close ? 0 : 4 * groups.far);
  out->weight.reserve(close ? 0 : groups.far);
  out->group_start.reserve(weights.rows + 1);
  out->group_start.push_back(0);
  for (size_t row = 0; row < weights.rows; ++row) {
    const Int8Row values = QuantizedRow(weights, row);
    const uint16_t* column = weights.column.data() + weights.row_start[row];
    if (close) {
      AddCloseRow(values, column, out);
    } else {
      AddFarRow(values, column, out);
    }
    out->group_start.push_back(
        static_cast<uint32_t>(close ? out->close.size() : out->weight.size()));
    out->scale.push_back(values.scale);
    out->sum.push_back(values.sum);
  }
}

void BuildDenseInt8(const Weights& weights, DenseInt8* out) {
  out->rows = weights.rows;
  out->columns = weights.columns;
  const size_t quads = (out->columns + 3) / 4;
  const size_t blocks = (out->rows + DenseInt8::kRows - 1) / DenseInt8::kRows;
  out->weight.assign(blocks * quads * DenseInt8::kRows, 0);
  std::vector<int8_t> dense(quads * 4);
  for (size_t row = 0; row < out->rows; ++row) {
    const Int8Row values = QuantizedRow(weights, row);
    std::fill(dense.begin(), dense.end(), int8_t{0});
    for (size_t i = 0; i < values.values.size(); ++i) {
      dense[weights.column[weights.row_start[row] + i]] = values.values[i];
    }
    uint32_t* to = out->weight.data() + row / DenseInt8::kRows * quads * DenseInt8::kRows +
                   row % DenseInt8::kRows;
    for (size_t quad = 0; quad < quads; ++quad) {
      to[quad * DenseInt8::kRows] = WordOf(dense.data() + 4 * quad);
    }
    out->scale.push_back(values.scale);
    out->sum.push_back(values.sum);
  }
}

void BuildSparseFp32(const Weights& weights, SparseFp32* out) {
  out->rows = weights.rows;
  out->columns = weights.columns;
  std::vector<uint32_t> at(weights.row_start.begin(), weights.row_start.end() - 1);
  out->index.reserve(weights.nonzeros());
  out->weight.reserve(weights.nonzeros());
  for (size_t first = 0; first < out->columns; first += SparseFp32::kBlock) {
    for (size_t row = 0; row < out->rows; ++row) {
      out->start.push_back(static_cast<uint32_t>(out->weight.size()));
      for (; at[row] < weights.row_start[row + 1] &&
             weights.column[at[row]] < first + SparseFp32::kBlock;
           ++at[row]) {
        out->index.push_back(static_cast<uint16_t>(weights.column[at[row]] - first));
        out->weight.push_back(FloatAt(weights, row, at[row]));
      }
    }
  }
  out->start.push_back(static_cast<uint32_t>(out->weight.size()));
}

void BuildDenseFp32(const Weights& weights, DenseFp32* out) {
  out->rows = weights.rows;
  out->columns = weights.columns;
  const size_t blocks = (out->rows + DenseFp32::kRows - 1) / DenseFp32::kRows;
  out->weight.assign(blocks * out->columns * DenseFp32::kRows, 0.0f);
  for (size_t row = 0; row < out->rows; ++row) {
    float* to = out->weight.data() + row / DenseFp32::kRows * out->columns * DenseFp32::kRows +
                row % DenseFp32::kRows;
    for (size_t i = weights.row_start[row]; i < weights.row_start[row + 1]; ++i) {
      to[weights.column[i] * DenseFp32::kRows] = FloatAt(weights, row, i);
    }
  }
}

}  // namespace

const char* Name(Kernel kernel) {
  switch (kernel) {
    case Kernel::kSparseInt8:
      return "sparse_int8";
    case Kernel::kDenseInt8:
      return "dense_int8";
    case Kernel::kSparseFp32:
      return "sparse_fp32";
    case Kernel::kDenseFp32:
      return "dense_fp32";
  }
  return "";
}

std::shared_ptr<const Product> Product::Build(const Weights& weights, Kernel kernel) {
  auto product = std::make_shared<Product>();
  product->kernel_ = kernel;
  product->rows_ = weights.rows;
  product->columns_ = weights.columns;
  product->nonzeros_ = weights.nonzeros();
  switch (kernel) {
    case Kernel::kSparseInt8:
      BuildSparseInt8(weights, &product->sparse_int8_);
      break;
    case Kernel::kDenseInt8:
      BuildDenseInt8(weights, &product->dense_int8_);
      break;
    case Kernel::kSparseFp32:
      BuildSparseFp32(weights, &product->sparse_fp32_);
      break;
    case Kernel::kDenseFp32:
      BuildDenseFp32(weights, &product->dense_fp32_);
      break;
  }
  return product;
}

namespace {

// Equal hash, size and kernel are taken for equal products.
using Key = std::tuple<uint64_t, uint64_t, size_t, Kernel>;

struct Shared {
  std::mutex mutex;
  std::map<Key, std::weak_ptr<const Product>> products;

  void DropExpired() {
    for (auto it = products.begin(); it != products.end();) {
      it = it->second.expired() ? products.erase(it) : std::next(it);
    }
  }
};

// Never destroyed: sessions may outlive this library's static objects.
Shared& AllProducts() {
  static Shared& shared = *new Shared;
  return shared;
}

}  // namespace

std::shared_ptr<const Product> Product::Make(const Weights& weights, Kernel kernel) {
  if (weights.hash.low == 0 && weights.hash.high == 0) return Build(weights, kernel);
  Shared& shared = AllProducts();
  const Key key{weights.hash.low, weights.hash.high, weights.nonzeros(), kernel};
  {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    const auto found = shared.products.find(key);
    if (found != shared.products.end()) {
      if (auto product = found->second.lock()) return product;
    }
  }
  // Built without the lock, so that sessions are opened side by side; the first to finish wins.
  auto built = Build(weights, kernel);
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.DropExpired();
  std::weak_ptr<const Product>& slot = shared.products[key];
  if (auto product = slot.lock()) return product;
  slot = built;
  return built;
}

size_t Product::Held() {
  Shared& shared = AllProducts();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.DropExpired();
  return shared.products.size();
}

void Product::Run(const KernelTable& table, size_t row0, size_t row1, size_t width,
                  const TileInput& x, const Epilogue& epilogue) const {
  switch (kernel_) {
    case Kernel::kSparseInt8:
      return table.sparse_int8(sparse_int8_, row0, row1, width, x.rows, epilogue);
    case Kernel::kDenseInt8:
      return table.dense_int8(dense_int8_, row0, row1, width, x.quads, epilogue);
    case Kernel::kSparseFp32:
      return table.sparse_fp32(sparse_fp32_, row0, row1, width, x.values, epilogue);
    case Kernel::kDenseFp32:
      return table.dense_fp32(dense_fp32_, row0, row1, width, x.values, epilogue);
  }
}

}  // namespace smp
