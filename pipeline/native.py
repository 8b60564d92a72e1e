"""The native library with the operators of the domain ``smp``: where it lies and what it says.

It is loaded when first asked for; everything but models of the format ``engine`` does without.
"""

import ctypes
import functools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigurationError, MachineError, first_line

__all__ = [
    "INSTRUCTION_SETS",
    "ISA_VARIABLE",
    "isa",
    "library_path",
    "register",
    "report",
    "reset_profile",
    "share_threads",
    "version",
]

ISA_VARIABLE = "SMP_ENGINE_ISA"
INSTRUCTION_SETS = ("scalar", "avx2", "avx512", "avx512_vnni", "neon", "neon_dot", "neon_i8mm")

# Of smp_engine_version: what this module and the exported weights are written for.
_VERSION = 1

_SERVE = Path(__file__).parent.parent / "serve"
_ENDINGS = {"darwin": "dylib", "win32": "dll"}
_FILE = f"libsmp_engine.{_ENDINGS.get(sys.platform, 'so')}"


def library_path() -> Path:
    """Where the shared library lies, for ``register_custom_ops_library`` and for C++ users.

    Raises:
        MachineError: it was not built, for want of a compiler.
    """
    path = _SERVE / _FILE
    if not path.is_file():
        raise MachineError(
            f"{path} is missing: no C++17 compiler has built it; install one (Debian and Ubuntu: "
            f"apt-get install g++) and build it: {_rebuild()}"
        )
    return path


def register(session_options: Any) -> None:
    """Make the operators known to an ``onnxruntime.SessionOptions``.

    Raises:
        ConfigurationError: the environment variable SMP_ENGINE_ISA asks for an instruction set
            that is unknown or that this CPU lacks.
        MachineError: the library is missing, cannot be loaded, or ONNX Runtime refuses it.
    """
    isa()
    try:
        session_options.register_custom_ops_library(str(library_path()))
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise MachineError(
            f"{library_path()}: onnxruntime cannot register it ({first_line(error)}); "
            "upgrade onnxruntime (1.22 or newer)"
        ) from error


def isa() -> str:
    """The instruction set that the kernels use, one of :data:`INSTRUCTION_SETS`.

    Raises:
        ConfigurationError: SMP_ENGINE_ISA asks for one that is unknown or that this CPU lacks.
        MachineError: the library is missing or cannot be loaded.
    """
    library = _load()
    wanted = os.environ.get(ISA_VARIABLE)
    supported = [name for name in INSTRUCTION_SETS if library.smp_engine_supported(name.encode())]
    if wanted and wanted not in supported:
        reason = "which this CPU lacks" if wanted in INSTRUCTION_SETS else "which is unknown"
        raise ConfigurationError(
            f"the environment variable {ISA_VARIABLE} asks for {wanted}, {reason}; expected one of "
            f"{', '.join(supported)}, or unset it for the best of them"
        )
    active: bytes = library.smp_engine_isa()
    return active.decode()


def version() -> int:
    """The version of the library's C functions.

    Raises:
        MachineError: the library is missing or cannot be loaded.
    """
    return int(_load().smp_engine_version())


def report() -> Mapping[str, Any]:
    """What the operators of all open sessions of this process do, and the time they took.

    Returns:
        ``isa``, and ``nodes``: one object an operator with ``node`` (its name), ``op``, ``plan``
        (one object a matrix: ``name``, ``kernel``, ``density``) and ``profile`` (stage -> seconds
        since it was made or since :func:`reset_profile`).

    Raises:
        MachineError: the library is missing or cannot be loaded.
    """
    library = _load()
    size = 1
    while True:
        text = ctypes.create_string_buffer(size)
        needed = int(library.smp_engine_report(text, size))
        if needed <= size:
            break
        size = 2 * needed  # another thread may open a session in between
    content: Mapping[str, Any] = json.loads(text.value)
    return content


def reset_profile() -> None:
    """Set the times in :func:`report` to zero.

    Raises:
        MachineError: the library is missing or cannot be loaded.
    """
    _load().smp_engine_reset_profile()


def share_threads(threads: int) -> None:
    """Let the operators of all sessions of this process run on threads that they share.

    They sleep when idle, and no more than ``threads`` work at once, those that call included.
    Sessions need no threads of their own then: ``intra_op_num_threads = 1``.

    Args:
        threads: how many; 0 takes back what was said before.

    Raises:
        MachineError: the library is missing or cannot be loaded, or the system has no threads left.
    """
    if _load().smp_engine_share_threads(threads) != 0:
        raise MachineError(f"the native library cannot make {threads} threads; give fewer threads")


@functools.cache
def _load() -> ctypes.CDLL:
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        library.smp_engine_version.restype = ctypes.c_int
        library.smp_engine_isa.restype = ctypes.c_char_p
        library.smp_engine_supported.argtypes = [ctypes.c_char_p]
        library.smp_engine_report.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        library.smp_engine_report.restype = ctypes.c_size_t
        library.smp_engine_reset_profile.restype = None
        library.smp_engine_share_threads.argtypes = [ctypes.c_int]
    except (OSError, AttributeError) as error:  # damaged, of another machine, or older than this
        raise MachineError(
            f"{path} cannot be loaded ({first_line(error)}); build it again: {_rebuild()}"
        ) from error
    found = library.smp_engine_version()
    if found != _VERSION:
        raise MachineError(
            f"{path} is of version {found}, expected {_VERSION}; build it again: {_rebuild()}"
        )
    return library


def _rebuild() -> str:
    if (_SERVE / "kernels" / "CMakeLists.txt").is_file():  # a checkout
        return "make native"
    return "pip install --force-reinstall --no-deps --no-cache-dir smp-pipeline"
