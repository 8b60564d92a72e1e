"""The models of benchmarks/many_tasks.py: tasks that prune the same frozen encoder differently."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file

from export.engine import blob
from pipeline.artifacts.exported import (
    MODEL_FILE,
    TOKENIZER_FILE,
    read_exported,
    write_export_manifest,
)
from pipeline.artifacts.files import sha256_file, staged_directory


def make_tasks(engine: Path, base: Path, density: float, count: int, seed: int) -> list[Path]:
    """Model directories beside an engine export, each with masks and a head of its own.

    They are what a training run and `export` for each would give: the graph, embeddings, biases
    and normalisations are the export's, the weights that remain are the base model's.

    Args:
        engine: a model directory of the format ``engine``.
        base: the base model that it was pruned from.
        density: share of each matrix that is kept.
        count: how many; those that are there already are used again.
        seed: of masks and heads.
    """
    directories = [engine.with_name(f"{engine.name}-task{index}") for index in range(count)]
    missing = [index for index in range(count) if not directories[index].exists()]
    weights = load_file(base / "model.safetensors") if missing else {}
    for index in missing:
        generator = np.random.default_rng([seed, index])
        model = onnx.load(engine / MODEL_FILE)
        for tensor in model.graph.initializer:
            if tensor.raw_data.startswith(b"SMPW"):
                matrix = weights[tensor.name]
                kept = generator.random(matrix.shape, dtype=np.float32) < density
                encoded = blob.encode(np.where(kept, matrix, 0).astype(np.float32), "int8")
                tensor.CopyFrom(numpy_helper.from_array(encoded, tensor.name))
            elif tensor.name.startswith("head."):
                values = 0.05 * generator.standard_normal(tuple(tensor.dims)).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        with staged_directory(directories[index]) as scratch:
            onnx.save(model, scratch / MODEL_FILE)
            for name in (TOKENIZER_FILE, "config.json"):
                (scratch / name).write_bytes((engine / name).read_bytes())
            digest = sha256_file(scratch / MODEL_FILE)
            manifest = dataclasses.replace(
                read_exported(engine), density=density, model_sha256=digest
            )
            write_export_manifest(scratch, manifest)
    return directories
