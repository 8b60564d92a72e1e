#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "cases.h"
#include "checks.h"
#include "cpu.h"
#include "engine.h"
#include "tests.h"

namespace smp::test {
namespace {

using Rows = std::vector<std::vector<double>>;  // [tokens][features]

Rows ReferenceProduct(const EncoderCase& c, size_t layer, size_t i, const Rows& x) {
  const Matrix& w = c.matrices[6 * layer + i];
  Rows y;
  for (const auto& token : x) {
    y.emplace_back();
    for (size_t row = 0; row < w.rows; ++row) {
      double sum = c.vectors[10 * layer + i][row];
      for (size_t k = 0; k < w.columns; ++k) sum += static_cast<double>(w.at(row, k)) * token[k];
      y.back().push_back(i == 4 ? sum * 0.5 * (1.0 + std::erf(sum / std::sqrt(2.0))) : sum);
    }
  }
  return y;
}

void ReferenceNorm(const EncoderCase& c, size_t layer, size_t i, const Rows& added, Rows* x) {
  for (size_t t = 0; t < x->size(); ++t) {
    auto& token = (*x)[t];
    double mean = 0.0, variance = 0.0;
    for (size_t f = 0; f < c.hidden; ++f) mean += (token[f] += added[t][f]) / c.hidden;
    for (const double value : token) variance += (value - mean) * (value - mean) / c.hidden;
    for (size_t f = 0; f < c.hidden; ++f) {
      token[f] = (token[f] - mean) / std::sqrt(variance + 1e-5) * c.vectors[10 * layer + i][f] +
                 c.vectors[10 * layer + i + 1][f];
    }
  }
}

Rows ReferenceAttention(const EncoderCase& c, const Rows& q, const Rows& k, const Rows& v) {
  const size_t size = c.hidden / c.heads;
  Rows out(q.size(), std::vector<double>(c.hidden, 0.0));
  for (size_t head = 0; head < c.heads; ++head) {
    for (size_t i = 0; i < q.size(); ++i) {
      std::vector<double> weight(q.size());
      double sum = 0.0;
      for (size_t j = 0; j < q.size(); ++j) {
        double dot = 0.0;
        for (size_t f = head * size; f < (head + 1) * size; ++f) dot += q[i][f] * k[j][f];
        sum += weight[j] = std::exp(dot * c.scale());
      }
      for (size_t j = 0; j < q.size(); ++j) {
        for (size_t f = head * size; f < (head + 1) * size; ++f) {
          out[i][f] += weight[j] / sum * v[j][f];
        }
      }
    }
  }
  return out;
}

std::vector<double> ReferenceEncoder(const EncoderCase& c, const Batch& batch) {
  const size_t rows = c.first ? 1 : batch.sequence;
  std::vector<double> y(batch.batch * rows * c.hidden, 0.0);
  for (size_t b = 0; b < batch.batch; ++b) {
    std::vector<size_t> there;
    Rows x;
    for (size_t t = 0; t < batch.sequence; ++t) {
      if (!batch.mask.empty() && batch.mask[b * batch.sequence + t] == 0) continue;
      const float* in = batch.x.data() + (b * batch.sequence + t) * c.hidden;
      x.emplace_back(in, in + c.hidden);
      there.push_back(t);
    }
    for (size_t layer = 0; layer < c.layers; ++layer) {
      const auto product = [&](size_t i, const Rows& in) {
        return ReferenceProduct(c, layer, i, in);
      };
      const Rows context = ReferenceAttention(c, product(0, x), product(1, x), product(2, x));
      ReferenceNorm(c, layer, 6, product(3, context), &x);
      ReferenceNorm(c, layer, 8, product(5, product(4, x)), &x);
    }
    for (size_t i = 0; i < there.size(); ++i) {
      if (there[i] < rows) {
        std::copy(x[i].begin(), x[i].end(),
                  y.begin() + static_cast<ptrdiff_t>((b * rows + there[i]) * c.hidden));
      }
    }
  }
  return y;
}

}  // namespace

void TestEncoder(Isa isa) {
  // The same on all instruction sets and plans, and slow where an emulator works them out.
  static std::map<std::string, std::vector<double>> references;
  const size_t sizes[][2] = {{1, 1}, {1, 40}, {5, 9}, {6, 33}, {2, 130}};
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    for (const bool first : {false, true}) {
      for (const size_t heads : {1, 3, 8}) {
        EncoderCase c;
        c.compute = compute;
        c.first = first;
        c.heads = heads;
        c.layers = heads == 3 ? 2 : 1;
        c.Fill(0.3, static_cast<uint32_t>(heads));
        const auto encoder = c.Make();
        for (const auto& size : sizes) {
          for (const bool masked : {false, true}) {
            const Batch batch = RandomBatch(c, size[0], size[1], masked, 3);
            const std::string what = "batch " + std::to_string(size[0]) + ", sequence " +
                                     std::to_string(size[1]) + ", heads " + std::to_string(heads) +
                                     (compute == Compute::kInt8 ? ", int8" : ", fp32") +
                                     (first ? ", first" : ", all") + (masked ? ", masked" : "");
            const std::string note = std::string(Name(isa)) + ", " + what;
            const auto y = Run(*encoder, c, batch, 1);
            auto& expected = references[what];
            if (expected.empty()) expected = ReferenceEncoder(c, batch);
            double worst = 0.0, sum = 0.0;
            for (size_t i = 0; i < y.size(); ++i) {
              const double difference = std::fabs(y[i] - expected[i]);
              worst = difference <= worst ? worst : difference;  // also if it is NaN
              sum += difference;
            }
            if (compute == Compute::kFp32) {
              EXPECT(worst < 1e-4, note + ": " + std::to_string(worst));
            } else {
              EXPECT(sum / static_cast<double>(y.size()) < 0.03, note + ": " + std::to_string(sum));
            }
            const size_t threads = masked ? 2 : 3;
            EXPECT(SameBits(Run(*encoder, c, batch, threads), y), note);
          }
        }
      }
    }
  }
}

void TestEncoderBadTokens(Isa isa) {
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    EncoderCase c;
    c.compute = compute;
    c.Fill(0.4, 5);
    const auto encoder = c.Make();
    // Sequences of odd lengths, side by side in one tile.
    Batch batch = RandomBatch(c, 7, 11, false, 0);
    const auto clean = Run(*encoder, c, batch, 1);
    for (const size_t b : {0, 3, 6}) {
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        Batch changed = batch;
        changed.x[(b * 11 + 10) * c.hidden + 2] = bad;
        auto y = Run(*encoder, c, changed, 2);
        for (size_t i = b * 11 * c.hidden; i < (b + 1) * 11 * c.hidden; ++i) {
          EXPECT(std::isnan(y[i]), Name(isa));
          y[i] = clean[i];
        }
        EXPECT(SameBits(y, clean), std::string("other sequences, ") + Name(isa));
      }
    }
    // What is masked away may be anything.
    batch = RandomBatch(c, 5, 20, true, 1);
    const auto masked = Run(*encoder, c, batch, 1);
    for (size_t i = 0; i < batch.mask.size(); ++i) {
      if (batch.mask[i] != 0) continue;
      std::fill_n(batch.x.begin() + static_cast<ptrdiff_t>(i * c.hidden), c.hidden,
                  std::numeric_limits<float>::quiet_NaN());
    }
    EXPECT(SameBits(Run(*encoder, c, batch, 2), masked), std::string("masked, ") + Name(isa));
  }
}

}  // namespace smp::test
