"""What the C functions answer to wrong arguments."""

import ctypes
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.serve.c_api import pointer
from tests.serve.matrices import make_matrix

WriteBlob = Callable[..., bytes]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "sigmoid"}, "activation is 'sigmoid'; expected none"),
        ({"compute": "int4"}, "compute is 'int4'; expected fp32 or int8"),
        ({"blob": b"SMPX" + bytes(60)}, "weights: they do not start with the mark SMPW"),
        ({"threads": 0}, "threads is 0; expected 1 to"),
        ({"threads": 10**6}, "threads is 1000000; expected 1 to"),
        ({"gamma": True}, "gamma and beta go together"),
    ],
)
def test_errors_of_the_c_interface_are_one_line(
    engine: Any, write_blob: WriteBlob, changes: dict[str, Any], message: str
) -> None:
    blob = changes.get("blob", write_blob(make_matrix(3, 4, 1, 0)))
    error = ctypes.create_string_buffer(500)
    x, y = np.ones((1, 4), np.float32), np.ones((1, 3), np.float32)
    status = engine.smp_engine_linear(
        *(blob, len(blob), None, changes.get("activation", "none").encode()),
        *(changes.get("compute", "fp32").encode(), pointer(x), 1, None),
        *(pointer(y) if "gamma" in changes else None, None, 1e-5, pointer(y)),
        *(changes.get("threads", 1), error, len(error)),
    )
    assert status != 0
    assert message in error.value.decode()
    assert b"\n" not in error.value


def test_instruction_sets_that_are_not_there_are_not_forced(engine: Any) -> None:
    assert engine.smp_engine_supported(b"scalar") == 1
    assert engine.smp_engine_supported(b"mmx") == 0
    assert engine.smp_engine_force_isa(b"mmx") != 0
    assert engine.smp_engine_force_isa(None) != 0


def test_a_report_that_does_not_fit_says_what_it_needs(engine: Any) -> None:
    needed = engine.smp_engine_report(None, 0)
    text = ctypes.create_string_buffer(b"x" * needed)
    assert engine.smp_engine_report(text, needed - 1) == needed
    assert text.value == b"x" * needed
    assert engine.smp_engine_report(text, needed) == needed
    assert set(json.loads(text.value)) == {"isa", "nodes"}
