"""Run directories as `train` writes them, made from a random encoder and random masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.artifacts.classifier import Head, encoder_sha256, load_encoder
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.masks import write_masks
from pipeline.artifacts.run import (
    AnswerLayout,
    BaseModel,
    DataFile,
    HeadLayout,
    MatrixDensity,
    RunManifest,
    TaskKind,
    TaskLayout,
    write_run_manifest,
)
from tests.made_up_data import TAGS

MATRICES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
}


_TASKS: dict[str, dict[str, Any]] = {
    "classification": {
        "text_column": "text",
        "text_pair_column": None,
        "label_column": "label",
        "metric": "accuracy",
    },
    "regression": {"metric": "pearson"},
    "question-answering": {
        "text_column": "question",
        "text_pair_column": "context",
        "label_column": "answers",
        "metric": "squad_f1",
        "answers": AnswerLayout(8, 6, 5, no_answer=True),
    },
    "token-classification": {
        "text_column": "tokens",
        "label_column": "ner_tags",
        "metric": "entity_f1",
    },
}


def write_run(
    directory: Path,
    *,
    model: Path,
    validation_file: Path,
    density: float = 0.2,
    method: str = "smp-s",
    pooling: str = "mean",
    labels: tuple[str, ...] = ("0", "1"),
    kind: TaskKind | None = None,
) -> Path:
    """Write a run directory with random masks and a random head.

    ``kind`` is by default classification, or regression where there are no labels.
    """
    from transformers import AutoTokenizer

    directory.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    tokenizer.save_pretrained(directory)
    encoder = load_encoder(str(model))
    digest = encoder_sha256(encoder)
    generator = np.random.default_rng(0)
    masks, matrices = {}, {}
    if method != "finetune":
        for name, weight in encoder.named_parameters():
            for path, matrix_type in MATRICES.items():
                layer, dot, rest = name.removeprefix("encoder.layer.").partition(".")
                if dot and rest == f"{path}.weight":
                    mask = generator.random(tuple(weight.shape)) < density
                    masks[name] = mask
                    matrices[name] = MatrixDensity(
                        matrix_type, int(layer), mask.shape, int(mask.sum())
                    )
        write_masks(directory / "masks.safetensors", masks)
        kept = sum(matrix.kept for matrix in matrices.values())
        density = kept / sum(matrix.size for matrix in matrices.values())
    else:
        density = 1.0
    changed = method not in ("smp-s", "smp-l")
    if changed:
        torch.manual_seed(3)
        weights = {
            name: weight.detach() + 0.01 * torch.randn_like(weight)
            for name, weight in encoder.named_parameters()
        }
        save_file(weights, str(directory / "weights.safetensors"))
    kind = kind or ("classification" if labels else "regression")
    task = {**_TASKS["classification"], **_TASKS.get(kind, {})}
    outputs = 2 if kind == "question-answering" else max(1, len(labels))
    layout = HeadLayout(
        kind="linear",
        pooling=pooling,
        hidden_size=encoder.config.hidden_size,
        outputs=outputs,
        mask_token_id=tokenizer.mask_token_id if pooling == "mask" else None,
    )
    torch.manual_seed(1)
    head = Head(layout)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    save_file(head.state_dict(), str(directory / "head.safetensors"))
    data = DataFile(str(validation_file), sha256_file(validation_file), rows=48, truncated=0)
    pruned = method != "finetune"
    manifest = RunManifest(
        smp_pipeline_version="0.1.0",
        method=method,
        density=density,
        base_model=BaseModel(str(model), None, encoder.config.model_type, digest),
        task=TaskLayout(kind=kind, labels=labels, max_length=48, **task),
        head=layout,
        train_data=data,
        validation_data=data,
        masks_sha256=sha256_file(directory / "masks.safetensors") if pruned else None,
        head_sha256=sha256_file(directory / "head.safetensors"),
        weights_sha256=sha256_file(directory / "weights.safetensors") if changed else None,
        matrices=matrices,
        metrics={"accuracy": 0.5},
        settings={"seed": 0},
        versions={},
        hardware={},
    )
    write_run_manifest(directory, manifest)
    return directory


MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, reviews: tuple[Path, Path]
) -> MakeRun:
    """Writes run directories on the tiny BERT, or on ``model``."""

    def make(**options: object) -> Path:
        directory = tmp_path_factory.mktemp("runs") / "run"
        arguments = {"model": tiny_bert, "validation_file": reviews[1], **options}
        return write_run(directory, **arguments)

    return make


@pytest.fixture(scope="session")
def random_run(make_run: MakeRun) -> Path:
    """A run of the tiny BERT at density 0.2."""
    return make_run()


@pytest.fixture(scope="session")
def token_runs(make_run: MakeRun, token_data: dict[TaskKind, Path]) -> dict[TaskKind, Path]:
    """A run of each kind whose logits are of tokens, of the tiny BERT at density 0.2."""
    labels = {"question-answering": (), "token-classification": TAGS}
    return {
        kind: make_run(kind=kind, labels=labels[kind], pooling="tokens", validation_file=path)
        for kind, path in token_data.items()
    }
