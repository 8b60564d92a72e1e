"""Run directories as `train` writes them, made from a random encoder and random masks."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import save_file

from export.graph import _trace
from pipeline.artifacts.classifier import Head, TextClassifier, encoder_sha256, load_encoder
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.masks import write_masks
from pipeline.artifacts.run import (
    BaseModel,
    DataFile,
    HeadLayout,
    MatrixDensity,
    RunManifest,
    TaskLayout,
    write_run_manifest,
)

MATRICES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
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
) -> Path:
    """Write a run directory with random masks and a random head."""
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
        torch.manual_seed(3)
        weights = {
            name: weight.detach() + 0.01 * torch.randn_like(weight)
            for name, weight in encoder.named_parameters()
        }
        save_file(weights, str(directory / "weights.safetensors"))
    outputs = max(1, len(labels))
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
        task=TaskLayout(
            kind="classification" if labels else "regression",
            labels=labels,
            text_column="text",
            text_pair_column=None,
            label_column="label",
            max_length=48,
            metric="accuracy" if labels else "pearson",
        ),
        head=layout,
        train_data=data,
        validation_data=data,
        masks_sha256=sha256_file(directory / "masks.safetensors") if pruned else None,
        head_sha256=sha256_file(directory / "head.safetensors"),
        weights_sha256=None if pruned else sha256_file(directory / "weights.safetensors"),
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
def traces() -> dict[str, bytes]:
    """What was traced: a digest of the classifier and all else that a trace depends on -> ONNX."""
    return {}


@pytest.fixture(scope="module")
def traced_once(traces: dict[str, bytes]) -> Iterator[None]:
    """Tracing, seconds of torch.export, happens once for equal classifiers, not once a format.

    For tests of what is made of a trace: those of tracing itself (test_graph.py) go without.
    """

    def trace(classifier: TextClassifier, inputs: Sequence[str], opset: int) -> ir.Model:
        digest = hashlib.sha256(
            f"{classifier} {classifier.encoder.config} {inputs} {opset}".encode()
        )
        for name, values in classifier.state_dict().items():
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key not in traces:
            traces[key] = ir.to_proto(_trace(classifier, inputs, opset)).SerializeToString()
        return ir.from_proto(onnx.load_from_string(traces[key]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.graph._trace", trace)
        yield
