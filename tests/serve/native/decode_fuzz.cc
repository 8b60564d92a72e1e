// Fuzzes the decoder of weights. With libFuzzer: clang++ -fsanitize=fuzzer,address. Without it,
// SMP_STANDALONE_FUZZ gives a main: decode_fuzz [rounds], the same ones every time.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "weights.h"

namespace {

// What everything that comes out of the decoder may be relied upon for.
bool IsSound(const smp::Weights& weights) {
  if (weights.row_start.size() != size_t{weights.rows} + 1 || weights.row_start[0] != 0 ||
      weights.row_start.back() != weights.nonzeros()) {
    return false;
  }
  const bool int8 = !weights.scale.empty();
  if (int8 ? weights.scale.size() != weights.rows || !weights.values.empty() ||
                 weights.quantized.size() != weights.nonzeros()
           : !weights.quantized.empty() || weights.values.size() != weights.nonzeros()) {
    return false;
  }
  for (size_t row = 0; row < weights.rows; ++row) {
    if (weights.row_start[row] > weights.row_start[row + 1]) return false;
    for (size_t i = weights.row_start[row]; i < weights.row_start[row + 1]; ++i) {
      if (weights.column[i] >= weights.columns) return false;
      if (i > weights.row_start[row] && weights.column[i] <= weights.column[i - 1]) return false;
      const float value =
          int8 ? weights.scale[row] * static_cast<float>(weights.quantized[i]) : weights.values[i];
      if (!(value - value == 0.0f)) return false;  // NaN or infinity
    }
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string error;
  const auto weights = smp::DecodeWeights(data, size, &error);
  const bool one_line = !error.empty() && error.find('\n') == std::string::npos;
  if (weights ? !IsSound(*weights) : !one_line) std::abort();
  return 0;
}

#if defined(SMP_STANDALONE_FUZZ)

#include <cstdio>

#include "blob.h"

namespace {

using smp::test::Bytes;

// A number that decoders trip over, in `size` bytes.
void PutNumber(Bytes* bytes, size_t at, size_t size, std::mt19937* random) {
  const uint64_t numbers[] = {0,          1,          2,           63,         64,
                              255,        65535,      65536,       65537,      0x7fffffff,
                              0x80000000, 0xffffffff, 0x100000000, ~0ULL >> 1, ~0ULL};
  const uint64_t number = numbers[(*random)() % std::size(numbers)] + (*random)() % 3 - 1;
  for (size_t i = 0; i < size && at + i < bytes->size(); ++i) {
    (*bytes)[at + i] = static_cast<uint8_t>(number >> (8 * i));
  }
}

void Mutate(Bytes* bytes, std::mt19937* random) {
  const size_t size = bytes->size();
  switch ((*random)() % 6) {
    case 0:  // a bit anywhere
      (*bytes)[(*random)() % size] ^= static_cast<uint8_t>(1u << (*random)() % 8);
      break;
    case 1:  // a byte of the header
      (*bytes)[(*random)() % std::min<size_t>(size, 32)] = static_cast<uint8_t>((*random)());
      break;
    case 2: {  // a whole field of the header
      const size_t fields[][2] = {{4, 2}, {6, 1}, {7, 1}, {8, 4}, {12, 4}, {16, 8}, {24, 8}};
      const auto& field = fields[(*random)() % std::size(fields)];
      PutNumber(bytes, field[0], field[1], random);
      break;
    }
    case 3:  // shorter
      bytes->resize((*random)() % size);
      break;
    case 4:  // longer
      bytes->insert(bytes->end(), 1 + (*random)() % 100, static_cast<uint8_t>((*random)() % 3));
      break;
    default:  // a run of bytes
      const size_t at = (*random)() % size;
      std::fill_n(bytes->begin() + static_cast<ptrdiff_t>(at),
                  std::min<size_t>(size - at, 1 + (*random)() % 9),
                  static_cast<uint8_t>((*random)() % 2 == 0 ? 255 : (*random)()));
  }
}

}  // namespace

int main(int count, char** words) {
  using namespace smp::test;
  const long rounds = count > 1 ? std::atol(words[1]) : 100000;
  std::mt19937 random(7);
  std::vector<Bytes> seeds;
  for (const Values values : {kFp32, kFp16, kInt8}) {
    for (const Mask mask : {kDense, kBitmap, kGaps}) {
      seeds.push_back(Encode(RandomMatrix(5, 7, 0.4, 1), values, mask));
      seeds.push_back(Encode(RandomMatrix(3, 700, 0.01, 2), values, mask));
    }
  }
  for (long round = 0; round < rounds; ++round) {
    Bytes bytes = seeds[random() % seeds.size()];
    for (size_t i = random() % 4; i > 0 && !bytes.empty(); --i) Mutate(&bytes, &random);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%ld rounds\n", rounds);
  return 0;
}

#endif
