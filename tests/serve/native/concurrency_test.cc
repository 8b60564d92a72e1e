#include <cstddef>
#include <cstdint>
#include <vector>

#include "blob.h"
#include "cases.h"
#include "checks.h"
#include "cpu.h"
#include "tests.h"
#include "threads.h"

namespace smp::test {

void TestConcurrentRuns(Isa isa) {
  for (const Compute compute : {Compute::kFp32, Compute::kInt8}) {
    LinearCase l;
    l.matrix = RandomMatrix(70, 90, 0.2, 3);
    l.compute = compute;
    l.gamma = RandomFloats(70, 1);
    l.beta = RandomFloats(70, 2);
    EncoderCase e;
    e.compute = compute;
    e.Fill(0.3, 77);
    const auto linear = l.Make();
    const auto encoder = e.Make();
    constexpr size_t kInputs = 6;
    std::vector<std::vector<float>> x(kInputs), linear_y(kInputs), encoder_y(kInputs);
    std::vector<Batch> batches(kInputs);
    for (size_t i = 0; i < kInputs; ++i) {
      x[i] = RandomFloats((1 + 30 * i) * 90, static_cast<uint32_t>(i));
      batches[i] = RandomBatch(e, 1 + i, 5 + 9 * i, i % 2 == 1, static_cast<uint32_t>(i));
      linear_y[i] = Run(*linear, l.matrix, x[i], nullptr, 1);
      encoder_y[i] = Run(*encoder, e, batches[i], 1);
    }
    Together(4, [&](size_t thread) {
      for (size_t round = 0; round < 6; ++round) {
        const size_t i = (thread + round) % kInputs, threads = 1 + (thread + round) % 3;
        EXPECT(SameBits(Run(*linear, l.matrix, x[i], nullptr, threads), linear_y[i]), Name(isa));
        EXPECT(SameBits(Run(*encoder, e, batches[i], threads), encoder_y[i]), Name(isa));
        EXPECT(!encoder->TimeByStage().empty() && !encoder->PlanJson().empty(), Name(isa));
      }
    });
  }
}

}  // namespace smp::test
