#include <array>
#include <atomic>
#include <stdexcept>

#include "engine.h"
#include "prepared.h"
#include "tiles.h"

namespace smp {
namespace {

enum Stage { kPack, kQuantize, kQkv, kAttention, kOutput, kNorm, kIntermediate, kDown, kUnpack };
constexpr const char* kStageNames[] = {"pack",         "quantize", "query_key_value",
                                       "attention",    "output",   "norm",
                                       "intermediate", "down",     "unpack"};
constexpr size_t kStages = sizeof kStageNames / sizeof kStageNames[0];

// Tokens of a group for each thread: activations of all phases of a layer fit a core's cache.
constexpr size_t kGroupTokens = 128;

struct Layer {
  PreparedLinear query, key, value, output, intermediate, down;
  NormSpec attention_norm, output_norm;
};

// The tokens of one sequence that are not masked away, as positions of packed tokens.
struct Sequence {
  size_t batch, first, count;
};

// One set of tokens on their way through the feed-forward half of a layer, and its buffers.
struct Stream {
  Stream(Workspace::Lease& lease, size_t tokens, size_t hidden, size_t intermediate, size_t heads,
         size_t query_bytes, Forms forms)
      : tiles(tokens),
        x(lease.Reserve(tiles.positions() * hidden * sizeof(float))),
        y(lease.Reserve(tiles.positions() * hidden * sizeof(float))),
        context(lease.Reserve(tiles.positions() * hidden * sizeof(float))),
        inner(lease.Reserve(tiles.positions() * intermediate * sizeof(float))),
        query(lease.Reserve(heads * tiles.positions() * query_bytes)),
        query_scale(lease.Reserve(heads * tiles.positions() * sizeof(float))),
        narrow(lease, tiles, hidden, forms.rows, forms.quads),
        wide(lease, tiles, intermediate, forms.rows, forms.quads) {}

  Tiles tiles;
  size_t x, y, context, inner, query, query_scale;  // offsets in the lease
  Quantized narrow, wide;
};

class TiledEncoder : public Encoder {
 public:
  explicit TiledEncoder(EncoderSpec spec)
      : table_(ActiveKernels()),
        heads_(spec.heads),
        scale_(spec.scale),
        first_token_only_(spec.first_token_only),
        input_norm_(std::move(spec.input_norm)) {
    if (spec.layers.empty() || spec.heads == 0) {
      throw std::invalid_argument("an encoder needs at least one layer and one head");
    }
    hidden_ = spec.layers[0].query.weights->rows;
    intermediate_ = spec.layers[0].intermediate.weights->rows;
    if (hidden_ == 0 || intermediate_ == 0 || hidden_ % heads_ != 0) {
      throw std::invalid_argument(std::to_string(hidden_) + " features are no multiple of " +
                                  std::to_string(heads_) + " heads");
    }
    head_size_ = hidden_ / heads_;
    if (!input_norm_.gamma.empty() || !input_norm_.beta.empty()) Check(input_norm_);
    int8_ = spec.layers[0].query.compute == Compute::kInt8;
    for (LayerSpec& layer : spec.layers) {
      for (const LinearSpec* linear : {&layer.query, &layer.key, &layer.value, &layer.output}) {
        Check(*linear, hidden_, hidden_);
      }
      Check(layer.intermediate, intermediate_, hidden_);
      Check(layer.down, hidden_, intermediate_);
      Check(layer.attention_norm);
      Check(layer.output_norm);
      layers_.push_back({PrepareLinear(layer.query, table_), PrepareLinear(layer.key, table_),
                         PrepareLinear(layer.value, table_), PrepareLinear(layer.output, table_),
                         PrepareLinear(layer.intermediate, table_),
                         PrepareLinear(layer.down, table_), std::move(layer.attention_norm),
                         std::move(layer.output_norm)});
      ForEachLinear(layers_.back(),
                    [&](const PreparedLinear& linear) { forms_.Include(*linear.product); });
    }
  }

  void Run(const float* x, const int64_t* mask, size_t batch, size_t sequence, float* y,
           const Parallel& parallel) const override;

  std::string PlanJson() const override {
    std::string json;
    for (const Layer& layer : layers_) {
      ForEachLinear(layer, [&](const PreparedLinear& linear) {
        json += (json.empty() ? "" : ", ") + linear.Json();
      });
    }
    return "[" + json + "]";
  }

  Profile TimeByStage() const override {
    Profile profile;
    for (size_t stage = 0; stage < kStages; ++stage) {
      profile[kStageNames[stage]] = static_cast<double>(nanoseconds_[stage].load()) * 1e-9;
    }
    return profile;
  }

 private:
  template <typename Fn>
  static void ForEachLinear(const Layer& layer, Fn fn) {
    for (const PreparedLinear* linear : {&layer.query, &layer.key, &layer.value, &layer.output,
                                         &layer.intermediate, &layer.down}) {
      fn(*linear);
    }
  }

  static void Check(const LinearSpec& linear, size_t rows, size_t columns) {
    if (linear.weights->rows != rows || linear.weights->columns != columns) {
      throw std::invalid_argument(linear.name + ": expected weights " + std::to_string(rows) +
                                  " x " + std::to_string(columns) + ", got " +
                                  std::to_string(linear.weights->rows) + " x " +
                                  std::to_string(linear.weights->columns));
    }
  }
  void Check(const NormSpec& norm) const {
    if (norm.gamma.size() != hidden_ || norm.beta.size() != hidden_) {
      throw std::invalid_argument("gamma and beta need " + std::to_string(hidden_) +
                                  " values each");
    }
  }

  // Runs all layers for some sequences. source: the row of x of every token.
  void RunGroup(const float* x, const std::vector<size_t>& source,
                const std::vector<Sequence>& sequences, float* y, const Parallel& parallel) const;

  // Bytes of one position of one head in the attention buffers.
  size_t HeadBytes() const { return int8_ ? (head_size_ + 3) / 4 * 4 : head_size_ * sizeof(float); }
  const Attention& attention() const {
    return int8_ ? table_.attention_int8 : table_.attention_fp32;
  }

  const KernelTable& table_;
  size_t heads_, hidden_, intermediate_, head_size_;
  float scale_;
  bool first_token_only_;
  NormSpec input_norm_;
  bool int8_;
  Forms forms_;
  std::vector<Layer> layers_;
  const std::shared_ptr<Workspace> workspace_ = Workspace::Shared();
  mutable std::atomic<size_t> threads_{1};  // that the last Run had
  mutable std::array<std::atomic<int64_t>, kStages> nanoseconds_{};
};

void TiledEncoder::Run(const float* x, const int64_t* mask, size_t batch, size_t sequence, float* y,
                       const Parallel& parallel) const {
  // Masked tokens are left out of everything: a batch of ragged texts costs what its tokens cost.
  std::vector<Sequence> sequences;
  std::vector<size_t> source;  // row of x of every packed token
  for (size_t b = 0; b < batch; ++b) {
    Sequence s{b, source.size(), 0};
    for (size_t t = 0; t < sequence; ++t) {
      if (mask == nullptr || mask[b * sequence + t] != 0) source.push_back(b * sequence + t);
    }
    s.count = source.size() - s.first;
    // Where only first tokens are wanted, a sequence whose first token is masked gives nothing.
    const bool wanted = !first_token_only_ || (s.count > 0 && source[s.first] % sequence == 0);
    if (s.count > 0 && wanted) sequences.push_back(s);
  }
  const size_t rows_out = first_token_only_ ? batch : batch * sequence;
  if (source.size() < batch * sequence) std::fill_n(y, rows_out * hidden_, 0.0f);

  // Large batches go through all layers in groups of sequences, so that what one layer leaves is
  // still in the cache when the next one reads it.
  const size_t limit = kGroupTokens * std::max<size_t>(2, threads_.load());
  const size_t groups = std::max<size_t>(1, (source.size() + limit / 2) / limit);
  const size_t group_tokens = (source.size() + groups - 1) / groups;
  std::vector<Sequence> group;
  std::vector<size_t> group_source;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto first = source.begin() + static_cast<ptrdiff_t>(sequences[i].first);
    group.push_back({sequences[i].batch, group_source.size(), sequences[i].count});
    group_source.insert(group_source.end(), first,
                        first + static_cast<ptrdiff_t>(sequences[i].count));
    if (group_source.size() >= group_tokens || i + 1 == sequences.size()) {
      RunGroup(x, group_source, group, y, parallel);
      group.clear();
      group_source.clear();
    }
  }
}

void TiledEncoder::RunGroup(const float* x, const std::vector<size_t>& source,
                            const std::vector<Sequence>& sequences, float* y,
                            const Parallel& parallel) const {
  size_t longest = 0;
  for (const Sequence& s : sequences) longest = std::max(longest, s.count);
  Workspace::Lease lease(*workspace_);
  const size_t head_bytes = HeadBytes();
  Stream all(lease, source.size(), hidden_, intermediate_, heads_, head_bytes, forms_);
  Stream firsts(lease, first_token_only_ ? sequences.size() : 1, hidden_, intermediate_, heads_,
                head_bytes, forms_);
  const size_t positions = all.tiles.positions();
  // Keys come in rows of one token, values in rows of one feature; both are read a little past
  // the end by the last pair.
  const size_t value_stride = positions + 16;
  const size_t value_size = int8_ ? sizeof(int16_t) : sizeof(float);
  // Two sets: a tile may be at the next layer's while another still reads this layer's.
  struct KeysAndValues {
    size_t keys, key_scales, key_offsets, values, value_scales;
  };
  KeysAndValues sets[2];
  for (KeysAndValues& set : sets) {
    set.keys = lease.Reserve(heads_ * positions * head_bytes);
    set.key_scales = lease.Reserve(heads_ * positions * sizeof(float));
    set.key_offsets = lease.Reserve(heads_ * positions * sizeof(float));
    set.values = lease.Reserve(hidden_ * value_stride * value_size);
    set.value_scales = lease.Reserve(heads_ * positions * sizeof(float));
  }
  const size_t scratch_floats = std::max(AttentionScratch(longest), head_size_ * kMaxWidth);
  const size_t scratch = lease.Reserve(Phases::kMaxWorkers * scratch_floats * sizeof(float));
  lease.Allocate();

  const auto scratch_of = [&](size_t worker) {
    return lease.At<float>(scratch) + worker * scratch_floats;
  };
  const Attention& attention = this->attention();
  Phases phases;

  phases.Add(kPack, all.tiles.TasksEach(1), [&](size_t tile, size_t, size_t) {
    const float* pointers[kMaxWidth];
    const size_t first = all.tiles.first(tile);
    const size_t count = std::min(kMaxWidth, source.size() - first);
    for (size_t i = 0; i < count; ++i) pointers[i] = x + source[first + i] * hidden_;
    table_.pack(pointers, count, hidden_, all.tiles.width(tile),
                lease.At<float>(all.x) + first * hidden_);
  });
  const auto normalise = [&](const NormSpec& spec, const Stream& stream, size_t buffer) {
    const auto tasks = stream.tiles.BlockTasks();
    phases.Add(kNorm, tasks, [&, buffer](size_t tile, size_t block, size_t) {
      const size_t position = stream.tiles.first(tile) + 16 * block;
      table_.layer_norm(lease.At<float>(buffer) + stream.tiles.Offset(position, hidden_), hidden_,
                        stream.tiles.width(tile), spec.gamma.data(), spec.beta.data(), spec.epsilon,
                        stream.narrow.minimum() + position, stream.narrow.maximum() + position);
      if (forms_.any()) SetParameters(table_, stream.narrow, position);
    });
  };
  if (!input_norm_.gamma.empty()) {
    normalise(input_norm_, all, all.x);
  } else if (forms_.any()) {
    AddMeasure(&phases, kPack, table_, all.tiles, all.narrow, lease.At<float>(all.x));
  }

  // Rows of one head of one linear, for one tile, into a buffer that attention reads.
  const auto project = [&](const Stream& stream, const PreparedLinear& linear, size_t tile,
                           size_t head, float* out) {
    const Epilogue epilogue{linear.Bias(), linear.activation, linear.approximate, nullptr,
                            out - head * head_size_ * stream.tiles.width(tile)};
    linear.product->Run(
        table_, head * head_size_, (head + 1) * head_size_, stream.tiles.width(tile),
        stream.narrow.Tile(stream.tiles.first(tile), lease.At<float>(stream.x)), epilogue);
  };
  const auto store_query = [&](const Layer& layer, Stream& stream, size_t tile, size_t head,
                               float* work) {
    project(stream, layer.query, tile, head, work);
    const size_t all_positions = stream.tiles.positions();
    attention.store_query(work, head_size_, stream.tiles.width(tile), stream.tiles.first(tile),
                          lease.At<char>(stream.query) + head * all_positions * head_bytes,
                          lease.At<float>(stream.query_scale) + head * all_positions);
  };

  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const KeysAndValues& set = sets[l % 2];
    const bool narrowed = first_token_only_ && l + 1 == layers_.size();
    Stream& stream = narrowed ? firsts : all;
    if (forms_.any()) {
      AddQuantize(&phases, kQuantize, table_, all.tiles, all.narrow, lease.At<float>(all.x),
                  forms_);
    }
    phases.Add(kQkv, all.tiles.TasksEach(heads_),
               [&, narrowed](size_t tile, size_t head, size_t worker) {
                 const size_t width = all.tiles.width(tile), first = all.tiles.first(tile);
                 float* work = scratch_of(worker);
                 if (!narrowed) store_query(layer, all, tile, head, work);
                 project(all, layer.key, tile, head, work);
                 attention.store_key(work, head_size_, width, first,
                                     lease.At<char>(set.keys) + head * positions * head_bytes,
                                     lease.At<float>(set.key_scales) + head * positions,
                                     lease.At<float>(set.key_offsets) + head * positions);
                 project(all, layer.value, tile, head, work);
                 attention.store_value(
                     work, head_size_, width, first,
                     lease.At<char>(set.values) + head * head_size_ * value_stride * value_size,
                     value_stride, lease.At<float>(set.value_scales) + head * positions);
               });
    if (narrowed) {
      // Of the last layer only the first tokens are wanted: their columns move to tiles of their
      // own, and all that follows is done for them alone.
      const auto tasks = stream.tiles.TasksEach(1);
      phases.Add(
          kPack, tasks,
          [&](size_t tile, size_t, size_t) {
            const size_t from = stream.tiles.first(tile), width = stream.tiles.width(tile);
            float* to = lease.At<float>(stream.x) + from * hidden_;
            for (size_t i = 0; i < width; ++i) {
              const bool there = from + i < sequences.size();
              const size_t position = there ? sequences[from + i].first : 0;
              const float* column = lease.At<float>(all.x) + all.tiles.Offset(position, hidden_);
              const size_t stride = all.tiles.width(position / kMaxWidth);
              for (size_t f = 0; f < hidden_; ++f)
                to[f * width + i] = there ? column[f * stride] : 0.0f;
            }
          },
          true);
      if (forms_.any()) {
        AddMeasure(&phases, kQuantize, table_, stream.tiles, stream.narrow,
                   lease.At<float>(stream.x));
        AddQuantize(&phases, kQuantize, table_, stream.tiles, stream.narrow,
                    lease.At<float>(stream.x), forms_);
      }
      phases.Add(kQkv, stream.tiles.TasksEach(heads_),
                 [&](size_t tile, size_t head, size_t worker) {
                   store_query(layer, stream, tile, head, scratch_of(worker));
                 });
    }

    // Attention: up to four blocks of 16 queries of one sequence in one tile a task.
    struct Queries {
      const Sequence* sequence;
      size_t first_block, blocks, first_query, queries;
    };
    std::vector<std::vector<Queries>> parts(stream.tiles.count());
    for (size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = sequences[i];
      const size_t first = narrowed ? i : s.first, count = narrowed ? 1 : s.count;
      const size_t end_block = (first + count + 15) / 16;
      for (size_t block = first / 16; block < end_block;) {
        const size_t next = std::min(end_block, (block / 4 + 1) * 4);
        parts[block / 4].push_back({&s, block, next - block, first, count});
        block = next;
      }
    }
    std::vector<size_t> tasks;
    for (const auto& part : parts) tasks.push_back(part.size() * heads_);
    phases.Add(
        kAttention, tasks,
        [&, parts = std::move(parts)](size_t tile, size_t number, size_t worker) {
          const size_t head = number % heads_;
          const Queries& group = parts[tile][number / heads_];
          const size_t query_positions = stream.tiles.positions();
          AttentionTask task{};
          task.query = lease.At<char>(stream.query) + head * query_positions * head_bytes;
          task.query_scale = lease.At<float>(stream.query_scale) + head * query_positions;
          task.key = lease.At<char>(set.keys) + head * positions * head_bytes;
          task.key_scale = lease.At<float>(set.key_scales) + head * positions;
          task.key_offset = lease.At<float>(set.key_offsets) + head * positions;
          task.value = lease.At<char>(set.values) + head * head_size_ * value_stride * value_size;
          task.value_scale = lease.At<float>(set.value_scales) + head * positions;
          task.value_stride = value_stride;
          task.head_size = head_size_;
          task.first_key = group.sequence->first;
          task.keys = group.sequence->count;
          task.first_block = group.first_block;
          task.blocks = group.blocks;
          task.first_query = group.first_query;
          task.queries = group.queries;
          task.scale = scale_;
          task.scratch = scratch_of(worker);
          for (size_t i = 0; i < group.blocks; ++i) {
            const size_t position = 16 * (group.first_block + i);
            const size_t width = stream.tiles.width(position / kMaxWidth);
            task.out[i] = lease.At<float>(stream.context) + stream.tiles.Offset(position, hidden_) +
                          head * head_size_ * width;
            task.out_stride[i] = width;
          }
          attention.run(task);
        },
        true);

    const auto multiply = [&](Stage stage, const PreparedLinear& linear, const Quantized& q,
                              size_t in, bool measure, const float* residual, size_t out) {
      const float* tiles_in = lease.At<float>(in);
      if (forms_.any()) {
        if (measure) AddMeasure(&phases, kQuantize, table_, stream.tiles, q, tiles_in);
        AddQuantize(&phases, kQuantize, table_, stream.tiles, q, tiles_in, forms_);
      }
      AddProduct(&phases, stage, table_, stream.tiles, q,
                 {linear.product.get(), linear.Bias(), linear.activation, linear.approximate,
                  tiles_in, residual, lease.At<float>(out)});
    };
    multiply(kOutput, layer.output, stream.narrow, stream.context, true, lease.At<float>(stream.x),
             stream.y);
    normalise(layer.attention_norm, stream, stream.y);
    multiply(kIntermediate, layer.intermediate, stream.narrow, stream.y, false, nullptr,
             stream.inner);
    multiply(kDown, layer.down, stream.wide, stream.inner, true, lease.At<float>(stream.y),
             stream.x);
    normalise(layer.output_norm, stream, stream.x);
  }

  const Stream& last = first_token_only_ ? firsts : all;
  phases.Add(kUnpack, last.tiles.TasksEach(1), [&](size_t tile, size_t, size_t) {
    float* pointers[kMaxWidth];
    const size_t first = last.tiles.first(tile);
    const size_t count = std::min(kMaxWidth, last.tiles.tokens() - first);
    for (size_t i = 0; i < count; ++i) {
      const size_t row = first_token_only_ ? sequences[first + i].batch : source[first + i];
      pointers[i] = y + row * hidden_;
    }
    table_.unpack(lease.At<float>(last.x) + first * hidden_, hidden_, last.tiles.width(tile), count,
                  pointers);
  });
  threads_.store(phases.Run(parallel, threads_.load(), nanoseconds_.data()));
}

}  // namespace

std::unique_ptr<Encoder> Encoder::Create(EncoderSpec spec) {
  return std::make_unique<TiledEncoder>(std::move(spec));
}

}  // namespace smp
