"""The native library's own tests, plain and under sanitizers."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serve.native_build import build, run, symbols, tool

SANITIZERS = {"plain": "", "address": "address,undefined", "thread": "thread"}
FUZZ_ROUNDS = 40_000  # some seconds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a first build compiles everything


def compiler() -> str:
    name = os.environ.get("CXX", "c++")
    if shutil.which(name) is None:
        pytest.skip(f"no C++ compiler ({name}) is installed")
    return name


def launcher(sanitizer: str, directory: Path) -> list[str]:
    """The words before a command that is built so; the test is skipped where none would run."""
    if not sanitizer:
        return []
    source, program = directory / "nothing.cc", directory / "nothing"
    source.write_text("int main() { return 0; }\n")
    built = subprocess.run(
        [compiler(), f"-fsanitize={sanitizer}", source, "-o", program], capture_output=True
    )
    if built.returncode != 0:
        pytest.skip(f"the compiler has no runtime for -fsanitize={sanitizer}")
    # Older thread sanitizers do not run where the kernel spreads addresses far.
    for words in ([], ["setarch", platform.machine(), "--addr-no-randomize"]):
        if words and shutil.which(words[0]) is None:
            continue
        if subprocess.run([*words, program], capture_output=True).returncode == 0:
            return words
    pytest.skip(f"programs built with -fsanitize={sanitizer} do not run on this machine")


@pytest.fixture(scope="module", params=list(SANITIZERS))
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A build directory, and the words before the programs in it."""
    name = request.param
    words = launcher(SANITIZERS[name], tmp_path_factory.mktemp(name))
    directory = build(
        "native" if name == "plain" else f"native-test-{name}",  # `make test` has begun it
        f"-DCMAKE_CXX_COMPILER={compiler()}",
        f"-DSMP_SANITIZE={'' if name == 'plain' else name}",
    )
    return directory, words


def test_the_kernels_pass_their_tests(built: tuple[Path, list[str]]) -> None:
    directory, words = built
    run([*words, directory / "engine_test"])


@pytest.mark.parametrize("built", ["plain", "address"], indirect=True)  # it starts no threads
def test_no_bytes_make_the_decoder_misbehave(built: tuple[Path, list[str]]) -> None:
    directory, words = built
    run([*words, directory / "decode_fuzz", FUZZ_ROUNDS])


@pytest.mark.parametrize("built", ["plain"], indirect=True)
def test_no_wide_instruction_leaks_out_of_its_file(built: tuple[Path, list[str]]) -> None:
    # The linker keeps one of several equal inline functions: were it one compiled for AVX-512,
    # the portable code would call it on any CPU.
    objects = [
        path
        for path in sorted(built[0].glob("CMakeFiles/smp_objects.dir/kernels_*.o"))
        if path.name != "kernels_scalar.cc.o"
    ]
    if platform.machine() in ("x86_64", "AMD64", "aarch64", "arm64"):
        assert objects
    for path in objects:
        defined = symbols(tool("nm"), path)
        assert "T" in [kind for kind, _ in defined]
        assert [name for kind, name in defined if kind == "W"] == [], path.name
