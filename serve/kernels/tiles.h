// How tokens lie in tiles, and the phases that every layer is made of.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels.h"
#include "phases.h"
#include "product.h"
#include "workspace.h"

namespace smp {

// `tokens` packed tokens in tiles of 64; the last one is as narrow as 16 or 32 where that does.
class Tiles {
 public:
  explicit Tiles(size_t tokens) : tokens_(tokens), count_((tokens + kMaxWidth - 1) / kMaxWidth) {
    const size_t rest = count_ == 0 ? 0 : tokens - (count_ - 1) * kMaxWidth;
    last_width_ = rest <= 16 ? 16 : rest <= 32 ? 32 : kMaxWidth;
  }
  size_t tokens() const { return tokens_; }
  size_t count() const { return count_; }
  size_t width(size_t tile) const { return tile + 1 == count_ ? last_width_ : kMaxWidth; }
  size_t first(size_t tile) const { return tile * kMaxWidth; }  // position of its first column
  size_t positions() const { return count_ == 0 ? 0 : first(count_ - 1) + last_width_; }
  std::vector<size_t> TasksEach(size_t tasks) const { return std::vector<size_t>(count_, tasks); }
  // One task for every 16 columns.
  std::vector<size_t> BlockTasks() const {
    std::vector<size_t> tasks(count_);
    for (size_t tile = 0; tile < count_; ++tile) tasks[tile] = width(tile) / 16;
    return tasks;
  }
  // Where column `position` of a [features] tile array begins, in elements.
  size_t Offset(size_t position, size_t features) const {
    const size_t tile = position / kMaxWidth;
    return first(tile) * features + position % kMaxWidth;
  }

 private:
  size_t tokens_, count_, last_width_ = 16;
};

// Rows of a product that one task computes: about 32 tasks in all, if rows and tiles allow.
inline size_t RowsPerTask(size_t rows, size_t tiles) {
  const size_t rows_per_task = (rows * tiles / 32 + 15) / 16 * 16;
  return std::min(rows, std::max<size_t>(32, rows_per_task));
}

// The eight-bit form of tiles of `features`: buffers and parameters of every token.
struct Quantized {
  Quantized(Workspace::Lease& lease, const Tiles& tiles, size_t features, bool rows, bool quads)
      : lease_(lease),
        features_(features),
        positions_(tiles.positions()),
        parameters_(lease.Reserve(6 * positions_ * sizeof(float))),
        rows_(rows ? lease.Reserve(positions_ * features) : 0),
        quads_(quads ? lease.Reserve(positions_ * PaddedFeatures()) : 0) {}

  size_t features() const { return features_; }
  float* minimum() const { return Parameter(0); }
  float* maximum() const { return Parameter(1); }
  float* inverse() const { return Parameter(2); }
  float* zero() const { return Parameter(3); }
  float* scale() const { return Parameter(4); }
  float* offset() const { return Parameter(5); }
  // Of the tile that begins at position `first`.
  uint8_t* rows(size_t first) const { return lease_.At<uint8_t>(rows_) + first * features_; }
  uint8_t* quads(size_t first) const {
    return lease_.At<uint8_t>(quads_) + first * PaddedFeatures();
  }

  // What products read of the tile that begins at position `first`.
  TileInput Tile(size_t first, const float* values) const {
    const float* scales = scale() + first;
    const float* offsets = offset() + first;
    return {values + first * features_,
            {rows(first), scales, offsets},
            {quads(first), scales, offsets}};
  }

 private:
  size_t PaddedFeatures() const { return (features_ + 3) / 4 * 4; }
  float* Parameter(size_t kind) const { return lease_.At<float>(parameters_) + kind * positions_; }

  Workspace::Lease& lease_;
  size_t features_, positions_, parameters_, rows_, quads_;
};

// Which forms of its input a set of products reads.
struct Forms {
  bool rows = false, quads = false;
  void Include(const Product& product) {
    rows |= product.kernel() == Kernel::kSparseInt8;
    quads |= product.kernel() == Kernel::kDenseInt8;
  }
  bool any() const { return rows || quads; }
};

// Parameters of 16 columns whose minimum and maximum are known.
inline void SetParameters(const KernelTable& table, const Quantized& q, size_t position) {
  table.quantize_parameters(q.minimum() + position, q.maximum() + position, 16,
                            q.inverse() + position, q.zero() + position, q.scale() + position,
                            q.offset() + position);
}

// Phase: minimum, maximum and parameters of every token.
inline void AddMeasure(Phases* phases, size_t stage, const KernelTable& table, const Tiles& tiles,
                       const Quantized& q, const float* x) {
  phases->Add(stage, tiles.BlockTasks(),
              [=, &table, &tiles, &q](size_t tile, size_t block, size_t) {
                const size_t position = tiles.first(tile) + 16 * block;
                table.min_max(x + tiles.Offset(position, q.features()), q.features(),
                              tiles.width(tile), q.minimum() + position, q.maximum() + position);
                SetParameters(table, q, position);
              });
}

// Phase: the bytes of every tile, in the forms that are read.
inline void AddQuantize(Phases* phases, size_t stage, const KernelTable& table, const Tiles& tiles,
                        const Quantized& q, const float* x, Forms forms) {
  constexpr size_t kStep = 128;
  const auto tasks = tiles.TasksEach((q.features() + kStep - 1) / kStep);
  phases->Add(stage, tasks, [=, &table, &tiles, &q](size_t tile, size_t task, size_t) {
    const size_t from = task * kStep, count = std::min(kStep, q.features() - from);
    const size_t width = tiles.width(tile), first = tiles.first(tile);
    const float* values = x + first * q.features() + from * width;
    const float *inverse = q.inverse() + first, *zero = q.zero() + first;
    if (forms.rows) {
      table.quantize_rows(values, count, width, inverse, zero, q.rows(first) + from * width);
    }
    if (forms.quads) {
      table.quantize_quads(values, count, width, inverse, zero, q.quads(first) + from * width);
    }
  });
}

// Phase: one product over all tiles. `x` and `q` are its input, residual and out tile arrays.
struct ProductPhase {
  const Product* product;
  const float* bias;
  Activation activation;
  bool approximate;
  const float* x;
  const float* residual;
  float* out;
};

inline void AddProduct(Phases* phases, size_t stage, const KernelTable& table, const Tiles& tiles,
                       const Quantized& q, const ProductPhase& p) {
  const size_t rows = p.product->rows(), step = RowsPerTask(rows, tiles.count());
  const auto tasks = tiles.TasksEach((rows + step - 1) / step);
  phases->Add(stage, tasks, [=, &table, &tiles, &q](size_t tile, size_t task, size_t) {
    const size_t row0 = task * step, first = tiles.first(tile), at = first * rows;
    const Epilogue epilogue{p.bias, p.activation, p.approximate,
                            p.residual != nullptr ? p.residual + at : nullptr, p.out + at};
    p.product->Run(table, row0, std::min(rows, row0 + step), tiles.width(tile), q.Tile(first, p.x),
                   epilogue);
  });
}

}  // namespace smp
