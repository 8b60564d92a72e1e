"""Registering the operators with ONNX Runtime."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path


def test_an_old_runtime_is_told_so(native_library: Path) -> None:
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)
    messages: list[bytes] = []

    @create_status
    def create(code: int, message: bytes) -> int:
        messages.append(message)
        return 4711

    table = (ctypes.c_void_p * 1)(ctypes.cast(create, ctypes.c_void_p))
    version = ctypes.create_string_buffer(b"1.9.0")
    functions = (
        get_api(lambda wanted: ctypes.addressof(table) if wanted <= 9 else None),
        get_version(lambda: ctypes.addressof(version)),
    )
    base = (ctypes.c_void_p * 2)(*(ctypes.cast(entry, ctypes.c_void_p) for entry in functions))
    register = ctypes.CDLL(str(native_library)).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, base) == 4711
    assert messages == [b"libsmp_engine needs ONNX Runtime 1.18 or newer; this is 1.9.0"]


def test_an_instruction_set_that_is_not_there_is_refused_at_registration(
    native_library: Path,
) -> None:
    code = (
        "import onnxruntime, sys\n"
        "onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
    )
    environment = {**os.environ, "SMP_ENGINE_ISA": "avx1024"}
    command = [sys.executable, "-c", code, str(native_library)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "SMP_ENGINE_ISA is avx1024: expected scalar, " in result.stderr
