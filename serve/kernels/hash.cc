#include "hash.h"

#include "little_endian.h"

namespace smp {
namespace {

uint64_t Rotate(uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }

struct SipState {
  // "somepseudorandomlygeneratedbytes", mixed with the key 00 01 .. 0f.
  uint64_t v0 = 0x736f6d6570736575ULL ^ 0x0706050403020100ULL;
  uint64_t v1 = 0x646f72616e646f6dULL ^ 0x0f0e0d0c0b0a0908ULL;
  uint64_t v2 = 0x6c7967656e657261ULL ^ 0x0706050403020100ULL;
  uint64_t v3 = 0x7465646279746573ULL ^ 0x0f0e0d0c0b0a0908ULL;

  void Rounds(int count) {
    for (int i = 0; i < count; ++i) {
      v0 += v1;
      v2 += v3;
      v1 = Rotate(v1, 13) ^ v0;
      v3 = Rotate(v3, 16) ^ v2;
      v0 = Rotate(v0, 32);
      v2 += v1;
      v0 += v3;
      v1 = Rotate(v1, 17) ^ v2;
      v3 = Rotate(v3, 21) ^ v0;
      v2 = Rotate(v2, 32);
    }
  }

  void Absorb(uint64_t word) {
    v3 ^= word;
    Rounds(2);
    v0 ^= word;
  }

  uint64_t Folded() const { return v0 ^ v1 ^ v2 ^ v3; }
};

}  // namespace

Hash128 HashBytes(const uint8_t* data, size_t size) {
  SipState state;
  state.v1 ^= 0xee;  // the variant with 128 bits of output
  const size_t whole = size - size % 8;
  for (size_t i = 0; i < whole; i += 8) {
    state.Absorb(LoadLittle<uint64_t>(data + i));
  }
  uint64_t last = static_cast<uint64_t>(size) << 56;
  for (size_t i = whole; i < size; ++i) {
    last |= static_cast<uint64_t>(data[i]) << (8 * (i - whole));
  }
  state.Absorb(last);

  Hash128 hash;
  state.v2 ^= 0xee;
  state.Rounds(4);
  hash.low = state.Folded();
  state.v1 ^= 0xdd;
  state.Rounds(4);
  hash.high = state.Folded();
  return hash;
}

}  // namespace smp
