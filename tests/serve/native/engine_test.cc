// Tests of the engine without ONNX Runtime, made to run under sanitizers: decoding, results on
// every instruction set, many Runs of one object at once. Prints what fails; exit code 1 then.
#include <cstdio>
#include <cstdlib>

#include "checks.h"
#include "cpu.h"
#include "tests.h"

#if defined(__SANITIZE_ADDRESS__)
// Memory that nobody has written is NaN: what reads it shows in the results.
extern "C" const char* __asan_default_options() {
  return "max_malloc_fill_size=1073741824:malloc_fill_byte=255";
}
#endif

int main() {
  using namespace smp;
  using namespace smp::test;
  TestHash();
  TestTasks();
  TestThreadPool();
  TestSharedThreadPool();
  TestDecodeValid();
  TestDecodeRefuses();
  TestRegistry();
  TestIsas();
  TestLinearRefuses();
  for (const Isa isa : kAllIsas) {
    if (!Supported(isa)) {
      std::printf("%s: not on this CPU\n", Name(isa));
      continue;
    }
    ForceIsa(isa);
    TestIntegerSums(isa);
    TestGroups(isa);
    for (const char* plan : {"sparse", "dense"}) {
      setenv("SMP_ENGINE_PLAN", plan, 1);
      TestLinear(isa);
      TestLinearBadTokens(isa);
      TestEncoder(isa);
      TestEncoderBadTokens(isa);
    }
    setenv("SMP_ENGINE_PLAN", "sparse", 1);
    TestConcurrentRuns(isa);
    std::printf("%s: done\n", Name(isa));
  }
  if (failures > 0) std::fprintf(stderr, "%d failures\n", failures.load());
  return failures > 0 ? 1 : 0;
}
