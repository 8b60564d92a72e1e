"""Building the native library's own tests.

The builds stay in build/ of the checkout, so that only what changed is compiled again.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str, package: str = "") -> str:
    """The one that the environment pins, or else the system's; the test is skipped without."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(name, path=path)
    if found is None:
        hint = f" (Debian and Ubuntu: apt-get install {package})" if package else ""
        pytest.skip(f"no {name} is installed{hint}")
    return found


def run(command: Sequence[object]) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def build(name: str, *settings: str) -> Path:
    """The directory of a build with the tests, all warnings being errors."""
    directory = ROOT / "build" / name
    cmake, ninja = tool("cmake", "cmake"), tool("ninja", "ninja-build")
    run(
        [
            *(cmake, "-S", ROOT / "serve" / "kernels", "-B", directory, "-G", "Ninja"),
            *(f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DSMP_WERROR=ON", "-DSMP_TESTS=ON", *settings),
        ]
    )
    run([cmake, "--build", directory])
    return directory


def symbols(nm: str, path: Path) -> list[list[str]]:
    """Kind and name of what an object file defines."""
    return [line.split(maxsplit=2)[1:] for line in run([nm, "--defined-only", path]).splitlines()]
