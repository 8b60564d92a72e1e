#include "encoder_op.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "linear_op.h"
#include "options.h"

namespace smp {
namespace {

constexpr size_t kX = 0, kMask = 1, kFirstWeights = 2;
constexpr size_t kInputsPerLayer = 16;
constexpr size_t kInputNormInputs = 2;  // after the last layer: gamma and beta, or neither
constexpr int64_t kMaxFeatures = 65536;
constexpr int64_t kMaxLayers = 4096;

bool IsFirstOnly(const std::string& tokens) {
  if (tokens == "first") return true;
  if (tokens == "all") return false;
  throw std::invalid_argument("tokens is '" + tokens + "'; expected all or first");
}

// Takes a node's weight inputs one after another.
class LayerReader {
 public:
  LayerReader(const NodeInfo& info, size_t hidden, size_t intermediate)
      : info_(info),
        name_(info.Name()),
        hidden_(hidden),
        intermediate_(intermediate),
        activation_(ActivationFromName(info.String("activation"))),
        compute_(ComputeFromName(info.String("compute"))),
        epsilon_(info.Float("epsilon")) {}

  // q_w q_b k_w k_b v_w v_b o_w o_b ln1_gamma ln1_beta f1_w f1_b f2_w f2_b ln2_gamma ln2_beta
  LayerSpec Next() {
    LayerSpec layer;
    layer.query = Matrix("q", "query", hidden_, hidden_);
    layer.key = Matrix("k", "key", hidden_, hidden_);
    layer.value = Matrix("v", "value", hidden_, hidden_);
    layer.output = Matrix("o", "output", hidden_, hidden_);
    layer.attention_norm = Norm("ln1");
    layer.intermediate = Matrix("f1", "intermediate", intermediate_, hidden_);
    layer.intermediate.activation = activation_;
    layer.down = Matrix("f2", "down", hidden_, intermediate_);
    layer.output_norm = Norm("ln2");
    ++layer_;
    return layer;
  }

  NormSpec Norm(const std::string& input) {
    NormSpec norm;
    norm.gamma = info_.Vector(index_++, Label(input + "_gamma"), hidden_);
    norm.beta = info_.Vector(index_++, Label(input + "_beta"), hidden_);
    norm.epsilon = epsilon_;
    return norm;
  }

 private:
  std::string Label(const std::string& input) const {
    return input + " of layer " + std::to_string(layer_);
  }

  LinearSpec Matrix(const std::string& input, const std::string& stage, size_t rows,
                    size_t columns) {
    LinearSpec linear;
    linear.name = name_ + "/layer." + std::to_string(layer_) + "/" + stage;
    linear.compute = compute_;
    linear.weights = WeightsInput(info_, index_++, Label(input + "_w"), rows, columns);
    linear.bias = info_.Vector(index_++, Label(input + "_b"), rows);
    return linear;
  }

  const NodeInfo& info_;
  const std::string name_;
  const size_t hidden_;
  const size_t intermediate_;
  const Activation activation_;
  const Compute compute_;
  const float epsilon_;
  size_t index_ = kFirstWeights;
  size_t layer_ = 0;
};

}  // namespace

EncoderKernel::EncoderKernel(const NodeInfo& info)
    : hidden_(info.Int("hidden", 1, kMaxFeatures)),
      first_token_only_(IsFirstOnly(info.String("tokens"))),
      has_mask_(info.HasInput(kMask)) {
  const size_t layers = static_cast<size_t>(info.Int("layers", 1, kMaxLayers));
  const size_t inputs = kFirstWeights + kInputsPerLayer * layers;
  const bool has_input_norm = info.InputCount() == inputs + kInputNormInputs;
  if (info.InputCount() != inputs && !has_input_norm) {
    throw std::invalid_argument("has " + std::to_string(info.InputCount()) + " inputs; " +
                                std::to_string(layers) + " layer(s) need " +
                                std::to_string(inputs) + ", and " +
                                std::to_string(kInputNormInputs) + " more to normalise X");
  }
  EncoderSpec spec;
  spec.first_token_only = first_token_only_;
  spec.scale = info.Float("scale");
  spec.heads = static_cast<size_t>(info.Int("heads", 1, kMaxFeatures));
  if (static_cast<size_t>(hidden_) % spec.heads != 0) {
    throw std::invalid_argument("heads is " + std::to_string(spec.heads) +
                                ", which does not divide hidden " + std::to_string(hidden_));
  }
  LayerReader reader(info, static_cast<size_t>(hidden_),
                     static_cast<size_t>(info.Int("intermediate", 1, kMaxFeatures)));
  for (size_t i = 0; i < layers; ++i) spec.layers.push_back(reader.Next());
  if (has_input_norm) spec.input_norm = reader.Norm("input");
  encoder_ = Encoder::Create(std::move(spec));
  live_ = std::make_unique<LiveNode>(NodeSource{info.Name(), kName,
                                                [this] { return encoder_->PlanJson(); },
                                                [this] { return encoder_->TimeByStage(); }});
}

void EncoderKernel::Compute(const RunContext& context, const Parallel& parallel) const {
  const std::optional<ConstTensor> x = context.Input(kX);
  if (!x || x->dims.size() != 3 || x->dims[2] != hidden_) {
    throw std::invalid_argument("X has the shape " + (x ? ToText(x->dims) : "of nothing") +
                                "; expected [batch, sequence, " + std::to_string(hidden_) + "]");
  }
  const Dims mask_dims = {x->dims[0], x->dims[1]};
  const int64_t* mask = nullptr;
  if (has_mask_) {
    const std::optional<ConstTensor> input = context.Input(kMask);
    if (!input || input->dims != mask_dims) {
      throw std::invalid_argument("mask has the shape " +
                                  (input ? ToText(input->dims) : "of nothing") + "; expected " +
                                  ToText(mask_dims));
    }
    mask = static_cast<const int64_t*>(input->data);
  }
  Dims y_dims = x->dims;
  // A sequence of no tokens has no first one.
  if (first_token_only_) y_dims[1] = std::min<int64_t>(1, y_dims[1]);
  float* y = context.Output(0, y_dims);
  if (ElementCount(x->dims, 2) == 0) return;
  encoder_->Run(static_cast<const float*>(x->data), mask, static_cast<size_t>(x->dims[0]),
                static_cast<size_t>(x->dims[1]), y, parallel);
}

void EncoderKernel::InferShape(const ShapeInfo& shapes) {
  std::vector<SymbolicDim> dims = shapes.Input(kX);
  if (dims.size() != 3) return;
  dims[2] = {shapes.Int("hidden"), ""};
  if (IsFirstOnly(shapes.String("tokens")) && dims[1].value != 0) dims[1] = {1, ""};
  shapes.SetOutput(0, dims);
}

}  // namespace smp
