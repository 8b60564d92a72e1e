"""What benchmarks/size.py measures of one model in all its formats."""

import dataclasses
import random
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.artifacts.classifier import load_encoder
from pipeline.artifacts.delta import read_content, read_delta
from pipeline.artifacts.exported import MODEL_FILE, read_exported, write_export_manifest
from pipeline.artifacts.files import directory_size_bytes, sha256_file
from pipeline.artifacts.mask_codec import decode_masks
from pipeline.artifacts.run import RunManifest, read_run
from pipeline.data import LabelledText, encode_labels, read_labelled_text
from serve import open_session
from serve.layout import exported_layout
from serve.peers.onnxruntime_int8 import quiet_quantiser
from serve.predict import predict
from serve.size import measure_size
from serve.startup import measure_startups
from serve.subjects import Subject

_DECODINGS = 5
_VALUE_BITS = {"fp32": 32, "fp16": 16, "int8": 8}


def measure_model(
    run: Path, exports: Mapping[str, Path], validation_file: Path, *, samples: int | None
) -> dict[str, Any]:
    """Sizes, load times, memory and exactness of one run's exports.

    Args:
        run: the run directory.
        exports: name -> model directory; the first is the reference, ``delta`` is no model.
        validation_file: labelled texts.
        samples: how many of them are used; None for all, with their accuracy.
    """
    manifest = read_run(run)
    directories = {name: path for name, path in exports.items() if name != "delta"}
    directories["dynamic int8 (ONNX Runtime)"] = quantised(next(iter(directories.values())))
    texts = read_labelled_text(
        validation_file,
        flag="--validation-file",
        text_column=manifest.task.text_column,
        text_pair_column=manifest.task.text_pair_column,
        label_column=manifest.task.label_column,
    )
    texts = texts if samples is None else texts.head(samples)
    startups = measure_startups(
        [open_session(directory, threads=1) for directory in directories.values()],
        processes=5,
        batch_size=1,
        sequence_length=manifest.task.max_length,
        random=random.Random(0),
        advance=lambda: None,
    )
    rows: dict[str, Any] = {}
    reference: NDArray[np.float32] | None = None
    for (name, directory), startup in zip(directories.items(), startups, strict=True):
        logits = logits_of(directory, texts)
        reference = logits if reference is None else reference
        found = {
            "model_bytes": measure_size(exported_layout(directory)).model_bytes,
            "bits_per_weight": bits_per_weight(directory / MODEL_FILE, manifest),
            "load_ms": startup.load_ms,
            "peak_rss_bytes": startup.peak_rss_bytes,
            "largest_logit_difference": float(np.abs(logits - reference).max()),
        }
        if samples is None:
            labels = encode_labels(texts, manifest.task.labels, flag="--validation-file")
            found["accuracy"] = float(np.mean(logits.argmax(axis=1) == labels))
        rows[name] = found
    return {
        "density": manifest.density,
        "weights": sum(matrix.size for matrix in manifest.matrices.values()),
        "entropy_bits": read_delta(exports["delta"]).bound_bits_per_weight,
        "value_bits": {name: bits * manifest.density for name, bits in _VALUE_BITS.items()},
        "texts": len(texts.texts),
        "largest_logit": float(np.abs(reference).max()) if reference is not None else 0.0,
        "formats": rows,
        "delta": measure_delta(exports["delta"]),
    }


def measure_delta(directory: Path) -> dict[str, Any]:
    """Size of a delta, and how fast its masks are decoded."""
    delta = read_delta(directory)
    content = read_content(directory, delta)
    parameters = dict(load_encoder(delta.run.base_model.id).named_parameters())
    weights = {name: parameters[name].detach().numpy() for name in delta.run.matrices}
    seconds = []
    for _ in range(_DECODINGS):
        start = time.process_time()
        decode_masks(content.masks, weights, source=directory)
        seconds.append(time.process_time() - start)
    return {
        "directory_bytes": directory_size_bytes(directory),
        "mask_bytes": delta.masks_bytes,
        "mask_bits_per_weight": delta.bits_per_weight,
        "decode_cpu_seconds": statistics.median(seconds),
    }


def bits_per_weight(path: Path, manifest: RunManifest) -> float:
    """What the pruned matrices take in the file, positions and values, in bits a weight."""
    graph = onnx.load(str(path)).graph
    names = set(manifest.matrices)

    def owned(name: str) -> bool:
        # A matrix is stored under its parameter's name, its parts as NAME.part or NAME_quantized.
        return any(name == entry or name.startswith((f"{entry}.", f"{entry}_")) for entry in names)

    sizes = [tensor.ByteSize() for tensor in graph.initializer if owned(tensor.name)]
    sizes += [tensor.ByteSize() for tensor in graph.sparse_initializer if owned(tensor.values.name)]
    weights = sum(matrix.size for matrix in manifest.matrices.values())
    return float(8 * sum(sizes) / weights)


def logits_of(directory: Path, texts: LabelledText) -> NDArray[np.float32]:
    """Logits of all texts, float32 [texts, outputs]."""
    session = open_session(directory)
    predictions, _ = predict(
        Subject(
            directory.name,
            str(directory),
            "onnxruntime",
            "CPUExecutionProvider",
            session,
            session.run,
        ),
        texts.texts,
        texts.pairs,
        classification=True,
        advance=lambda count: None,
    )
    return np.array(predictions.logits, dtype=np.float32)


def quantised(dense: Path) -> Path:
    """The peer: the dense file in ONNX Runtime's dynamic int8, as a model directory."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    directory = dense.with_name(f"{dense.name}-dynamic")
    if directory.exists():
        return directory
    part = directory.with_name(f"part-{directory.name}")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(dense, part)
    model = onnx.load(str(dense / MODEL_FILE))
    # The exporter stores shapes of which onnxruntime's quantiser makes a contradiction.
    model.graph.ClearField("value_info")
    with quiet_quantiser():
        quantize_dynamic(model, str(part / MODEL_FILE), weight_type=QuantType.QInt8)
    manifest = read_exported(dense)
    digest = sha256_file(part / MODEL_FILE)
    write_export_manifest(part, dataclasses.replace(manifest, model_sha256=digest))
    part.rename(directory)
    return directory
