"""The native library's own tests, built for 64-bit Arm and run by an emulator."""

from pathlib import Path

import pytest

from tests.serve.native_build import build, run, symbols, tool

PREFIX = "aarch64-linux-gnu-"

# A first build compiles everything, and the emulator takes about a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def built() -> Path:
    """A build directory with programs that need no library of the other machine's."""
    compiler = tool(f"{PREFIX}g++", "g++-aarch64-linux-gnu")
    return build(
        "native-test-arm",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )


def test_the_kernels_pass_their_tests_on_arm(built: Path) -> None:
    emulator = tool("qemu-aarch64", "qemu-user")
    lines = run([emulator, "-cpu", "max", built / "engine_test"]).splitlines()
    for isa in ("scalar", "neon", "neon_dot", "neon_i8mm"):
        assert f"{isa}: done" in lines
    for isa in ("avx2", "avx512", "avx512_vnni"):
        assert f"{isa}: not on this CPU" in lines


def test_no_wide_instruction_leaks_out_of_its_file_on_arm(built: Path) -> None:
    # As in test_native_build.py; and each file has the instructions that it is there for.
    needed = {"neon": "smull", "neon_dot": "sdot", "neon_i8mm": "usdot"}
    nm, objdump = (tool(f"{PREFIX}{n}", "binutils-aarch64-linux-gnu") for n in ("nm", "objdump"))
    for name, instruction in needed.items():
        path = built / "CMakeFiles" / "smp_objects.dir" / f"kernels_{name}.cc.o"
        defined = symbols(nm, path)
        assert "T" in [kind for kind, _ in defined]
        assert [symbol for kind, symbol in defined if kind == "W"] == [], name
        words = set(run([objdump, "--disassemble", "--no-show-raw-insn", path]).split())
        assert set(needed.values()) & words == {instruction}, name
