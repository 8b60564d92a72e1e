"""Exported directories load in optimum, in an environment of its own: it pins older packages."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from export import export_run
from pipeline.config import ExportConfig

TEXTS = ["the film was very good", "a dull plot and an awful actor " * 12, "grim"]
SCRIPT = Path(__file__).with_name("logits.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SMP_OPTIMUM_PYTHON" not in os.environ,
        reason="SMP_OPTIMUM_PYTHON names no interpreter with requirements/optimum.txt",
    ),
]


@pytest.mark.parametrize("weights", ["dense", "packed"])
def test_optimum_gives_the_same_logits_and_labels(weights: str, tiny_run: Path, tmp_path: Path):
    directory = tmp_path / "model"
    manifest = export_run(ExportConfig(run=tiny_run, output_dir=directory, format=weights))
    done = subprocess.run(
        [os.environ["SMP_OPTIMUM_PYTHON"], str(SCRIPT), str(directory), *TEXTS],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = onnxruntime_logits(directory, manifest.task.max_length)
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
    labels = manifest.task.labels
    assert [entry["label"] for entry in found["predictions"]] == [
        labels[index] for index in expected.argmax(axis=1)
    ]


def onnxruntime_logits(directory: Path, max_length: int) -> np.ndarray:
    """As the model card says: tokenizer.json and plain ONNX Runtime."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=0)
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"))
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    encodings = tokenizer.encode_batch(TEXTS)
    inputs = {
        entry.name: np.array([getattr(encoding, fields[entry.name]) for encoding in encodings])
        for entry in session.get_inputs()
    }
    (logits,) = session.run(["logits"], inputs)
    return logits
