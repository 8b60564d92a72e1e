"""The model files of benchmarks/runtime.py: one pruned model, in the form that each engine takes.

All of them come from one ``dense.onnx``, in opset 14 by torch's TorchScript exporter: DeepSparse
reads no newer opset, and ONNX Runtime runs it as fast as the graph of the newer exporter.
"""

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import smp_pipeline
from pipeline.errors import PipelineError
from serve import open_session
from serve.peers.onnxruntime_int8 import quiet_quantiser

OPSET = 14
SEQUENCE = 128  # of calibration and of the texts that logits are compared on
TEXTS = 8


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk.

    Attributes:
        directory: where its files lie.
        source: what the engine's files are made from: ``dense.onnx``, or the same in a model
            directory, whose tokenizer goes along.
        density: kept weights over all weights of its pruned matrices.
        vocabulary: number of token ids.
        sequence_limit: tokens that it takes at most.
    """

    directory: Path
    source: Path
    density: float
    vocabulary: int
    sequence_limit: int


def make_random(work_dir: Path, config: Path | None, density: float, seed: int) -> ModelFiles:
    """A BERT classifier with random weights under uniformly random masks, as ``dense.onnx``.

    Args:
        work_dir: where model directories lie; what is there already is used again.
        config: a transformers config.json, or None for BERT-base.
        density: kept share of each encoder matrix, in (0, 1].
        seed: of weights and masks.
    """
    from transformers import BertConfig

    settings = BertConfig() if config is None else BertConfig.from_pretrained(str(config))
    text = json.dumps(settings.to_diff_dict(), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    directory = work_dir / f"bert-{digest}-seed{seed}-density{density:g}"
    directory.mkdir(parents=True, exist_ok=True)
    dense = directory / "dense.onnx"
    _once(dense, lambda path: _export_random(path, settings, density, seed))
    limit = settings.max_position_embeddings
    return ModelFiles(directory, dense, density, settings.vocab_size, limit)


def make_trained(work_dir: Path, run: Path) -> tuple[ModelFiles, Path]:
    """The dense export of a training run, and the model directory with its tokenizer."""
    exported = work_dir / f"{run.name}-dense"
    if not exported.exists():
        smp_pipeline("export", str(run), "--format", "dense", "--output-dir", str(exported))
    session = open_session(exported)
    directory = work_dir / f"trained-{run.name}"
    directory.mkdir(parents=True, exist_ok=True)
    _once(
        directory / "dense.onnx",
        lambda path: path.write_bytes((exported / "model.onnx").read_bytes()),
    )
    manifest = session.manifest
    assert manifest is not None
    files = ModelFiles(
        directory,
        exported / "model.onnx",
        manifest.density,
        session.vocabulary_size,
        manifest.task.max_length,
    )
    return files, exported


def make_file(files: ModelFiles, name: str) -> Path:
    """One of the forms of a model, made from ``dense.onnx``.

    Those of the peers are made once, those of the engine anew each time, as its exporter changes.
    """
    path = files.directory / name
    dense = files.directory / "dense.onnx"
    if name == "dynamic-int8.onnx":
        with quiet_quantiser():
            _once(path, lambda target: _quantize_dynamic(dense, target))
    elif name in ("static-qdq.onnx", "static-qoperator.onnx"):
        form = "QDQ" if name == "static-qdq.onnx" else "QOperator"
        with quiet_quantiser():
            _once(path, lambda target: _quantize_static(dense, target, form, files))
    elif name.startswith("engine-"):
        shutil.rmtree(path.parent, ignore_errors=True)
        print(f"making {path}", file=sys.stderr, flush=True)
        compute = path.parent.name.partition("-")[2]
        convert = ("export", "--from-onnx", str(files.source), "--format", "engine")
        exact = ("--values", "fp32") if compute == "fp32" else ()
        smp_pipeline(
            *(*convert, "--compute", compute, *exact, "--output-dir", str(path.parent)),
        )
    return path


def comparison_inputs(files: ModelFiles) -> Path:
    """Random texts with padding, one a batch, all of one shape: ``comparison.npz``."""
    path = files.directory / "comparison.npz"
    generator = np.random.default_rng(11)
    arrays: dict[str, Any] = {}
    length = min(SEQUENCE, files.sequence_limit)
    for batch in range(TEXTS):
        ids = generator.integers(0, files.vocabulary, (1, length), dtype=np.int64)
        mask = (np.arange(length) < generator.integers(length // 4, length + 1))[None, :]
        arrays[f"input_ids/{batch}"] = ids
        arrays[f"attention_mask/{batch}"] = mask.astype(np.int64)
        arrays[f"token_type_ids/{batch}"] = np.zeros_like(ids)
    np.savez(path, **arrays)
    return path


def _export_random(path: Path, settings: Any, density: float, seed: int) -> None:
    import torch
    from transformers import BertForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    torch.manual_seed(seed)
    settings._attn_implementation = "eager"  # the plain operators, which any engine knows
    model = BertForSequenceClassification(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # or equal biases would be one tensor in the file
                parameter += 0.02 * torch.randn_like(parameter)
        for parameter in model.bert.encoder.parameters():
            if parameter.dim() == 2:
                parameter *= torch.rand_like(parameter) < density
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones((2, 8), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one
        torch.onnx.export(
            Logits(model),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={
                **{name: {0: "batch", 1: "sequence"} for name in names},
                "logits": {0: "batch"},
            },
        )


def _quantize_dynamic(dense: Path, target: Path) -> None:
    """All products with constant weights in int8, their inputs quantised at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(dense))
    # The newer exporter stores shapes of which onnxruntime's quantiser makes a contradiction.
    model.graph.ClearField("value_info")
    quantize_dynamic(model, str(target), weight_type=QuantType.QInt8)
    left = _constant_products(onnx.load(str(target)).graph)
    if left:
        raise PipelineError(
            f"{dense}: onnxruntime left {len(left)} products with constant weights in fp32 "
            f"(first {left[0]}); leave ort-int8 out of --engines"
        )


def _quantize_static(dense: Path, target: Path, form: str, files: ModelFiles) -> None:
    """The encoder's products in int8, their inputs with scales from calibration."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = _calibration(files)

        def get_next(self) -> Mapping[str, NDArray[np.int64]] | None:
            return next(self._batches, None)

    graph = onnx.load(str(dense), load_external_data=False).graph
    quantize_static(
        str(dense),
        str(target),
        Reader(),
        quant_format=QuantFormat[form],
        nodes_to_quantize=_constant_products(graph, types=("MatMul",)),
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )


def _calibration(files: ModelFiles) -> Iterator[Mapping[str, NDArray[np.int64]]]:
    generator = np.random.default_rng(5)
    shape = (1, min(SEQUENCE, files.sequence_limit))
    for _ in range(TEXTS):
        ids = generator.integers(0, files.vocabulary, shape, dtype=np.int64)
        yield {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }


def _constant_products(graph: Any, types: tuple[str, ...] = ("MatMul", "Gemm")) -> list[str]:
    constants = {entry.name for entry in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in types and constants.intersection(node.input[:2])
    ]


def _once(path: Path, make: Callable[[Path], object]) -> None:
    """Make a file under another name first, so that what is there is whole."""
    if path.exists():
        return
    print(f"making {path}", file=sys.stderr, flush=True)
    part = path.with_name(f"part-{path.name}")
    make(part)
    part.replace(path)
