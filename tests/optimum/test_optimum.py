"""Exported directories open elsewhere: in the oldest ONNX Runtime, and in optimum.

Both are in an environment of their own, since optimum pins older packages. It gets all
directories at once: importing takes longer than the models do.
"""

import json
import os
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from export import export_run
from pipeline.artifacts.run import TaskKind
from pipeline.config import ExportConfig
from serve import open_session
from tests.export.conftest import write_run
from tests.made_up_data import TAGS

TEXTS = ["the film was very good", "a dull plot and an awful actor " * 12, "grim"]
HERE = Path(__file__).parent
MAX_LENGTH = 64
VALUES = ("fp32", "fp16", "int8")
# (format, values, embeddings)
Choice = tuple[str, str, str]
ALL: list[Choice] = list(product(("dense", "sparse", "packed"), VALUES, VALUES))
IN_OPTIMUM = [choice for choice in ALL if choice[0] == "dense" or choice[:2] == ("packed", "fp16")]
TYPES = {"fp32": "FLOAT", "fp16": "FLOAT16", "int8": "INT8"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SMP_OPTIMUM_PYTHON" not in os.environ,
        reason="SMP_OPTIMUM_PYTHON names no interpreter with requirements/optimum.txt",
    ),
]


@pytest.fixture(scope="module")
def exports(
    tiny_run: Path, traced_once: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[Choice, Path]:
    """One run exported in every way."""
    scratch = tmp_path_factory.mktemp("exports")
    directories = {}
    for choice in ALL:
        weights, values, embeddings = choice
        directory = directories[choice] = scratch / "-".join(choice)
        export_run(
            ExportConfig(
                run=tiny_run,
                output_dir=directory,
                format=weights,
                values=values,
                embeddings=embeddings,
                tolerance=10,  # int8 is coarse for a random encoder of 32 features
                verification_samples=4,
            )
        )
    return directories


@pytest.fixture(scope="module")
def token_exports(
    tiny_bert: Path, token_data: dict[TaskKind, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[TaskKind, Path]:
    """A packed export of each kind whose logits are of tokens."""
    scratch = tmp_path_factory.mktemp("token-exports")
    for kind, path in token_data.items():
        run = write_run(
            scratch / f"{kind}-run",
            model=tiny_bert,
            validation_file=path,
            pooling="tokens",
            labels=TAGS if kind == "token-classification" else (),
            kind=kind,
        )
        export_run(ExportConfig(run=run, output_dir=scratch / kind, format="packed", tolerance=10))
    return {kind: scratch / kind for kind in token_data}


def run_script(interpreter: str, script: str, *arguments: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [interpreter, str(HERE / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def inputs_file(exports: dict[Choice, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the model card says: tokenizer.json and plain ONNX Runtime."""
    tokenizer = Tokenizer.from_file(str(exports["dense", "fp32", "fp32"] / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(pad_id=0)
    encodings = tokenizer.encode_batch(TEXTS)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
    arrays = {
        name: np.array([getattr(encoding, field) for encoding in encodings])
        for name, field in fields.items()
    }
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def newest(exports: dict[Choice, Path], inputs_file: Path) -> dict[str, Any]:
    return run_script(sys.executable, "runtime.py", inputs_file, *exports.values())


@pytest.fixture(scope="module")
def oldest(exports: dict[Choice, Path], inputs_file: Path) -> dict[str, Any]:
    python = os.environ["SMP_OPTIMUM_PYTHON"]
    return run_script(python, "runtime.py", inputs_file, *exports.values())


@pytest.fixture(scope="module")
def in_optimum(
    exports: dict[Choice, Path],
    token_exports: dict[TaskKind, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    texts = tmp_path_factory.mktemp("texts") / "texts.json"
    texts.write_text(json.dumps(TEXTS), encoding="utf-8")
    directories = [*(exports[choice] for choice in IN_OPTIMUM), *token_exports.values()]
    return run_script(os.environ["SMP_OPTIMUM_PYTHON"], "logits.py", texts, *directories)


def test_the_other_environment_has_the_oldest_version(oldest: dict[str, Any]) -> None:
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    (requirement,) = project["project"]["optional-dependencies"]["cpu"]
    assert oldest["version"] == requirement.removeprefix("onnxruntime>=") + ".0"


@pytest.mark.parametrize("choice", ALL, ids="-".join)
def test_the_oldest_runtime_gives_the_newests_logits(
    choice: Choice, exports: dict[Choice, Path], oldest: dict[str, Any], newest: dict[str, Any]
) -> None:
    directory = str(exports[choice])
    expected = np.array(newest["found"][directory]["logits"])
    found = np.array(oldest["found"][directory]["logits"])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("runtime", ["oldest", "newest"])
@pytest.mark.parametrize("choice", ALL, ids="-".join)
def test_what_runs_is_the_dense_graph_with_small_tables(
    choice: Choice, runtime: str, exports: dict[Choice, Path], request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(runtime)["found"]
    _, _, embeddings = choice
    ours, dense = (found[str(exports[each])] for each in (choice, ("dense", "fp32", embeddings)))
    assert ours["operators"] == dense["operators"]  # no decoder of weights is left
    types = ours["types"]
    assert types["embeddings.word_embeddings.weight"] == TYPES[embeddings]
    assert types["embeddings.position_embeddings.weight"] == TYPES[embeddings]


@pytest.mark.parametrize("choice", IN_OPTIMUM, ids="-".join)
def test_optimum_gives_the_same_logits_and_labels(
    choice: Choice, exports: dict[Choice, Path], in_optimum: dict[str, Any], newest: dict[str, Any]
) -> None:
    directory = exports[choice]
    found = in_optimum[str(directory)]
    expected = np.array(newest["found"][str(directory)]["logits"])
    np.testing.assert_allclose(found["logits"], expected, atol=1e-4 * np.abs(expected).max())
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    labels = manifest["task"]["labels"]
    assert [entry["label"] for entry in found["predictions"]] == [
        labels[index] for index in expected.argmax(axis=1)
    ]


@pytest.mark.parametrize("kind", ["question-answering", "token-classification"])
def test_optimum_gives_the_same_logits_of_every_token(
    kind: TaskKind, token_exports: dict[TaskKind, Path], in_optimum: dict[str, Any]
) -> None:
    session = open_session(token_exports[kind])
    pairs = TEXTS if kind == "question-answering" else None
    inputs = session.collate(session.encode(TEXTS, pairs))
    expected = session.run(inputs)
    found = in_optimum[str(token_exports[kind])]
    np.testing.assert_allclose(found["logits"], expected, atol=1e-4 * np.abs(expected).max())
    if kind == "question-answering":
        answers = zip(TEXTS, found["predictions"], strict=True)
        assert all(answer["answer"] in context for context, answer in answers)
    else:
        assert session.task is not None
        labels = session.task.labels
        named = [[labels[index] for index in row] for row in expected.argmax(axis=-1)]
        assert found["predictions"] == named
