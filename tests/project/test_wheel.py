"""What `pip install` makes of the sources, with a compiler and without."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def build_wheel(directory: Path, **environment: str) -> tuple[Path, str]:
    """The wheel, built without network access, and the build's log."""
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(directory), str(ROOT)]
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    (wheel,) = directory.glob("*.whl")
    return wheel, done.stdout + done.stderr


def serve_files(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("serve/")]


def native_files(wheel: Path) -> list[str]:
    return [name for name in serve_files(wheel) if not name.endswith((".py", ".html"))]


def test_without_a_compiler_all_but_the_library_is_installed(tmp_path: Path) -> None:
    wheel, log = build_wheel(tmp_path, CXX="/nonexistent/c++")
    assert wheel.name == f"smp_pipeline-{pipeline.__version__}-py3-none-any.whl"
    assert {"serve/session.py", "serve/server/page.html"} <= set(serve_files(wheel))
    assert native_files(wheel) == []
    assert "installed without its native library, since no C++17 compiler could build it" in log


def test_the_wheel_has_the_library_and_works_without_the_checkout(tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler is installed")
    wheel, log = build_wheel(tmp_path, SKBUILD_CMAKE_BUILD_TYPE="Debug")  # the quickest to compile
    others = native_files(wheel)
    assert len(others) == 1 and others[0].startswith("serve/libsmp_engine."), log[-8000:]
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("any.whl")
    assert "export/engine/__init__.py" in zipfile.ZipFile(wheel).namelist()
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    program = (
        "import onnxruntime, serve, pipeline.native as native; "
        "serve.register(onnxruntime.SessionOptions()); print(native.library_path())"
    )
    # -S: without the .pth file that leads to the checkout.
    path = [str(tmp_path / "installed"), sysconfig.get_path("purelib")]
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{tmp_path / 'installed' / others[0]}\n", done.stderr


def test_the_source_archive_has_the_library_s_sources(tmp_path: Path) -> None:
    program = "import sys, scikit_build_core.build as backend; backend.build_sdist(sys.argv[1])"
    command = [sys.executable, "-P", "-c", program, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    kernels = ROOT / "serve" / "kernels"
    assert {f"serve/kernels/{path.name}" for path in kernels.iterdir()} <= names
    assert not [name for name in names if name.startswith("serve/libsmp_engine.")]
