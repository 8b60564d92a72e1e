#include "hash.h"

#include <cstdint>

#include "checks.h"
#include "tests.h"

namespace smp::test {

void TestHash() {
  // Two of the vectors that SipHash's authors publish for 128 bits.
  const uint8_t message[1] = {0};
  const Hash128 none = HashBytes(message, 0), one = HashBytes(message, 1);
  EXPECT(none.low == 0xe6a825ba047f81a3ULL && none.high == 0x930255c71472f66dULL, "empty");
  EXPECT(one.low == 0x44af996bd8c187daULL && one.high == 0x45fc229b11597634ULL, "one byte");
}

}  // namespace smp::test
