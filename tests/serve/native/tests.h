// The tests, each in the file named after what it tests.
#pragma once

#include "cpu.h"

namespace smp::test {

void TestHash();
void TestTasks();
void TestThreadPool();
void TestSharedThreadPool();
void TestDecodeValid();
void TestDecodeRefuses();
void TestRegistry();
void TestIsas();
void TestLinearRefuses();

// On the instruction set that is forced at the time.
void TestIntegerSums(Isa isa);
void TestGroups(Isa isa);
void TestLinear(Isa isa);
void TestLinearBadTokens(Isa isa);
void TestEncoder(Isa isa);
void TestEncoderBadTokens(Isa isa);
void TestConcurrentRuns(Isa isa);

}  // namespace smp::test
