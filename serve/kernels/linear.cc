#include <atomic>
#include <stdexcept>

#include "engine.h"
#include "prepared.h"
#include "tiles.h"

namespace smp {
namespace {

class TiledLinear : public Linear {
 public:
  TiledLinear(LinearSpec linear, NormSpec norm)
      : table_(ActiveKernels()), linear_(PrepareLinear(linear, table_)), norm_(std::move(norm)) {
    if (norm_.gamma.size() != norm_.beta.size() ||
        (!norm_.gamma.empty() && norm_.gamma.size() != linear_.product->rows())) {
      throw std::invalid_argument("gamma and beta need one value for each of the " +
                                  std::to_string(linear_.product->rows()) + " output features");
    }
  }

  void Run(const float* x, size_t tokens, const float* residual, float* y,
           const Parallel& parallel) const override {
    if (tokens == 0) return;
    const Product& product = *linear_.product;
    const size_t columns = product.columns(), rows = product.rows();
    const Tiles tiles(tokens);
    Forms forms;
    forms.Include(product);
    Workspace::Lease lease(*workspace_);
    const size_t in = lease.Reserve(tiles.positions() * columns * sizeof(float));
    const size_t added =
        lease.Reserve(residual != nullptr ? tiles.positions() * rows * sizeof(float) : 0);
    const size_t out = lease.Reserve(tiles.positions() * rows * sizeof(float));
    const Quantized q(lease, tiles, columns, forms.rows, forms.quads);
    lease.Allocate();
    float* in_tiles = lease.At<float>(in);
    float* added_tiles = residual != nullptr ? lease.At<float>(added) : nullptr;
    float* out_tiles = lease.At<float>(out);

    Phases phases;
    phases.Add(0, tiles.TasksEach(1), [&](size_t tile, size_t, size_t) {
      PackTile(tiles, tile, x, columns, in_tiles);
      if (residual != nullptr) PackTile(tiles, tile, residual, rows, added_tiles);
    });
    if (forms.any()) {
      AddMeasure(&phases, 0, table_, tiles, q, in_tiles);
      AddQuantize(&phases, 0, table_, tiles, q, in_tiles, forms);
    }
    AddProduct(&phases, 0, table_, tiles, q,
               {&product, linear_.Bias(), linear_.activation, linear_.approximate, in_tiles,
                added_tiles, out_tiles});
    if (!norm_.gamma.empty()) {
      phases.Add(0, tiles.BlockTasks(), [&](size_t tile, size_t block, size_t) {
        float minimum[16], maximum[16];
        table_.layer_norm(out_tiles + tiles.Offset(tiles.first(tile) + 16 * block, rows), rows,
                          tiles.width(tile), norm_.gamma.data(), norm_.beta.data(), norm_.epsilon,
                          minimum, maximum);
      });
    }
    phases.Add(0, tiles.TasksEach(1), [&](size_t tile, size_t, size_t) {
      float* pointers[kMaxWidth];
      const size_t first = tiles.first(tile);
      const size_t count = std::min(kMaxWidth, tokens - first);
      for (size_t i = 0; i < count; ++i) pointers[i] = y + (first + i) * rows;
      table_.unpack(out_tiles + first * rows, rows, tiles.width(tile), count, pointers);
    });
    threads_.store(phases.Run(parallel, threads_.load(), nullptr));
  }

  std::string PlanJson() const override { return linear_.Json(); }

 private:
  void PackTile(const Tiles& tiles, size_t tile, const float* x, size_t features, float* to) const {
    const float* pointers[kMaxWidth];
    const size_t first = tiles.first(tile);
    const size_t count = std::min(kMaxWidth, tiles.tokens() - first);
    for (size_t i = 0; i < count; ++i) pointers[i] = x + (first + i) * features;
    table_.pack(pointers, count, features, tiles.width(tile), to + first * features);
  }

  const KernelTable& table_;
  const PreparedLinear linear_;
  const NormSpec norm_;
  const std::shared_ptr<Workspace> workspace_ = Workspace::Shared();
  mutable std::atomic<size_t> threads_{1};  // that the last Run had
};

}  // namespace

std::unique_ptr<Linear> Linear::Create(LinearSpec linear, NormSpec norm) {
  return std::make_unique<TiledLinear>(std::move(linear), std::move(norm));
}

}  // namespace smp
