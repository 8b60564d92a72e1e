"""The native library's own tests, built for 64-bit Arm and run by an emulator.

The build stays in build/ of the checkout, so that only what changed is compiled again.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREFIX = "aarch64-linux-gnu-"

# A first build compiles everything, and the emulator takes about a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def tool(name: str, package: str) -> str:
    """The one that the environment pins, or else the system's; the test is skipped without."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"no {name} is installed (Debian and Ubuntu: apt-get install {package})")
    return found


def run(command: Sequence[object]) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


@pytest.fixture(scope="module")
def built() -> Path:
    """A build directory with programs that need no library of the other machine's."""
    compiler = tool(f"{PREFIX}g++", "g++-aarch64-linux-gnu")
    cmake, ninja = tool("cmake", "cmake"), tool("ninja", "ninja-build")
    directory = ROOT / "build" / "native-test-arm"
    run(
        [
            *(cmake, "-S", ROOT / "serve" / "kernels", "-B", directory, "-G", "Ninja"),
            *(f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DCMAKE_CXX_COMPILER={compiler}"),
            *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
            *("-DCMAKE_EXE_LINKER_FLAGS=-static", "-DSMP_WERROR=ON", "-DSMP_TESTS=ON"),
        ]
    )
    run([cmake, "--build", directory])
    return directory


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
        listed = run([nm, "--defined-only", path]).splitlines()
        symbols = [line.split(maxsplit=2)[1:] for line in listed]
        assert "T" in [kind for kind, _ in symbols]
        assert [symbol for kind, symbol in symbols if kind == "W"] == [], name
        words = set(run([objdump, "--disassemble", "--no-show-raw-insn", path]).split())
        assert set(needed.values()) & words == {instruction}, name
