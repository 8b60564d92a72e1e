"""Calling the native library's C functions."""

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def load_engine(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    floats = ctypes.POINTER(ctypes.c_float)
    size, text = ctypes.c_size_t, ctypes.c_char_p
    library.smp_engine_isa.restype = text
    library.smp_engine_supported.argtypes = [text]
    library.smp_engine_force_isa.argtypes = [text]
    library.smp_engine_decode.argtypes = [text, size, floats, size, text, size]
    library.smp_engine_linear.argtypes = [
        *(text, size, floats, text, text, floats, size, floats, floats, floats),
        *(ctypes.c_float, floats, ctypes.c_int, text, size),
    ]
    library.smp_engine_report.argtypes = [text, size]
    library.smp_engine_report.restype = size
    library.smp_engine_reset_profile.restype = None
    library.smp_engine_products_held.restype = size
    return library


def pointer(array: NDArray[Any] | None) -> Any:
    if array is None:
        return None
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def report(engine: Any) -> dict[str, Any]:
    text = ctypes.create_string_buffer(2 * engine.smp_engine_report(None, 0) + 4096)
    assert engine.smp_engine_report(text, len(text)) <= len(text)
    content: dict[str, Any] = json.loads(text.value)
    return content
