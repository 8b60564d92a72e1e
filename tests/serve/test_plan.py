"""Which kernel a matrix gets: measured, cached in a file, or forced."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.op_models import as_blob, one_node

WriteBlob = Callable[..., bytes]

# In a process of its own: the library reads its cache once.
_OPEN = """
import json, sys
import numpy as np, onnxruntime
from pipeline import native

options = onnxruntime.SessionOptions()
options.log_severity_level = 4
native.register(options)
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
x = np.random.default_rng(0).standard_normal((5, session.get_inputs()[0].shape[1]), np.float32)
(y,) = session.run(None, {"X": x})
(node,) = native.report()["nodes"]
print(json.dumps({"kernel": node["plan"][0]["kernel"], "y": y.tolist()}))
"""


@pytest.fixture
def kernel_of(
    tmp_path: Path, native_library: Path, write_blob: WriteBlob
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Open one linear layer of a density and say which kernel it got."""

    def run(
        density: float, compute: str = "int8", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        rows, columns = 96, 128
        generator = np.random.default_rng(1)
        matrix = generator.standard_normal((rows, columns)).astype(np.float32)
        matrix[generator.random((rows, columns)) >= density] = 0
        attributes = {"in_features": columns, "out_features": rows, "compute": compute}
        path = tmp_path / "model.onnx"
        path.write_bytes(
            one_node(
                "SmpLinear",
                ["X", "W"],
                {"W": as_blob(write_blob(matrix))},
                {"X": [None, columns]},
                {"activation": "none", "epsilon": 1e-5, **attributes},
            )
        )
        cleared = {
            name: value
            for name, value in os.environ.items()
            if name not in ("SMP_ENGINE_PLAN", "SMP_ENGINE_ISA")
        }
        settings = {"SMP_ENGINE_CACHE": str(tmp_path / "cache"), **environment}
        return subprocess.run(
            [sys.executable, "-c", _OPEN, str(path)],
            env={**cleared, **settings},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def _result(process: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert process.returncode == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout)
    return result


@pytest.mark.parametrize("compute", ["int8", "fp32"])
def test_the_plan_can_be_forced_and_changes_no_result(
    kernel_of: Callable[..., subprocess.CompletedProcess[str]], compute: str
) -> None:
    sparse = _result(kernel_of(0.3, compute, SMP_ENGINE_PLAN="sparse"))
    dense = _result(kernel_of(0.3, compute, SMP_ENGINE_PLAN="dense"))

    assert sparse["kernel"] == f"sparse_{compute}"
    assert dense["kernel"] == f"dense_{compute}"
    if compute == "int8":  # integer sums: the same bit for bit
        assert sparse["y"] == dense["y"]
    else:
        np.testing.assert_allclose(sparse["y"], dense["y"], rtol=1e-5, atol=1e-5)


def test_an_unknown_plan_is_refused_in_one_line(
    kernel_of: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    process = kernel_of(0.3, SMP_ENGINE_PLAN="fastest")

    assert process.returncode != 0
    assert "SMP_ENGINE_PLAN is 'fastest'; give auto, sparse or dense" in process.stderr


def test_a_measured_plan_is_kept_in_a_file_that_later_processes_follow(
    kernel_of: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    first = _result(kernel_of(0.5))
    (path,) = (tmp_path / "cache").iterdir()
    (line,) = path.read_text().splitlines()
    assert line.endswith(f" {first['kernel']}")

    other = "dense_int8" if first["kernel"] == "sparse_int8" else "sparse_int8"
    path.write_text(line.replace(str(first["kernel"]), other) + "\n")

    assert _result(kernel_of(0.5))["kernel"] == other


@pytest.mark.parametrize("content", [b"", b"\xff\x00 nonsense\nno kernel\n", b"x" * 100_000])
def test_a_damaged_cache_is_measured_anew(
    kernel_of: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "engine-plan-1.txt"
    path.write_bytes(content)

    assert _result(kernel_of(0.5))["kernel"] in ("sparse_int8", "dense_int8", "sparse_fp32")


def test_a_cache_that_cannot_be_written_is_no_error(
    kernel_of: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    process = kernel_of(0.5, SMP_ENGINE_CACHE=str(tmp_path / "file" / "below"))

    assert _result(process)["kernel"] in ("sparse_int8", "dense_int8", "sparse_fp32")


def test_few_weights_are_multiplied_sparsely_without_a_measurement(
    kernel_of: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert _result(kernel_of(0.03))["kernel"] == "sparse_int8"
    assert not (tmp_path / "cache").exists()
