#include "cpu.h"

#include <stdexcept>

#include "checks.h"
#include "tests.h"

namespace smp::test {

void TestIsas() {
  EXPECT(Supported(Isa::kScalar), "");
  for (const Isa isa : kAllIsas) {
    EXPECT(IsaFromName(Name(isa)) == isa, Name(isa));
    bool thrown = false;
    try {
      ForceIsa(isa);
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    EXPECT(thrown != Supported(isa), Name(isa));
    EXPECT(thrown || ActiveIsa() == isa, Name(isa));
  }
  EXPECT(!IsaFromName("mmx"), "");
}

}  // namespace smp::test
