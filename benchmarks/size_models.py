"""The runs of benchmarks/size.py: a base model with random weights under random masks."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from pipeline.artifacts.classifier import Head, encoder_sha256, load_encoder
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.artifacts.masks import write_masks
from pipeline.artifacts.run import (
    HEAD_FILE,
    MASKS_FILE,
    BaseModel,
    DataFile,
    HeadLayout,
    MatrixDensity,
    RunManifest,
    TaskLayout,
    write_run_manifest,
)
from smp.architectures import pruned_matrices


def make_base_model(work_dir: Path, config: Path | None, tokenizer: str, seed: int) -> Path:
    """A BERT encoder with random weights and a real tokenizer, as a model directory.

    Args:
        work_dir: where it lies; what is there already is used again.
        config: a transformers config.json, or None for BERT-base.
        tokenizer: a model whose tokenizer goes along; it must not have more tokens than the config.
        seed: of the weights.
    """
    settings = BertConfig() if config is None else BertConfig.from_pretrained(str(config))
    text = json.dumps([settings.to_diff_dict(), tokenizer], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    directory = work_dir / f"bert-{digest}-seed{seed}"
    if not directory.exists():
        torch.manual_seed(seed)
        with staged_directory(directory) as scratch:
            model = BertModel(settings, add_pooling_layer=False)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() == 1:  # equal biases would be one tensor in the file
                        parameter += 0.02 * torch.randn_like(parameter)
            model.save_pretrained(scratch)
            AutoTokenizer.from_pretrained(tokenizer).save_pretrained(scratch)
    return directory


def make_random_run(
    model: Path, density: float, validation_file: Path, seed: int, max_length: int = 128
) -> Path:
    """A run directory on a base model: uniformly random masks and a random head.

    Args:
        model: the base model; the run lies beside it.
        density: share of each matrix that is kept.
        validation_file: csv with the columns ``text`` and ``label``.
        seed: of masks and head.
        max_length: tokens after which a text is cut.
    """
    directory = model.with_name(f"{model.name}-density{density:g}")
    if directory.exists():
        return directory
    encoder = load_encoder(str(model))
    digest = encoder_sha256(encoder)
    generator = np.random.default_rng(seed)
    masks, matrices = {}, {}
    pruned = {matrix.name: matrix for matrix in pruned_matrices(encoder, "bert")}
    for name, weight in encoder.named_parameters():
        if name in pruned:
            mask = generator.random(tuple(weight.shape), dtype=np.float32) < density
            masks[name] = mask
            matrices[name] = MatrixDensity(
                pruned[name].matrix_type, pruned[name].layer, mask.shape, int(mask.sum())
            )
    torch.manual_seed(seed)
    layout = HeadLayout("least-squares", "mean", encoder.config.hidden_size, outputs=2)
    with validation_file.open(newline="", encoding="utf-8") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    data = DataFile(str(validation_file.resolve()), sha256_file(validation_file), rows, 0)
    with staged_directory(directory) as scratch:
        AutoTokenizer.from_pretrained(str(model)).save_pretrained(scratch)
        write_masks(scratch / MASKS_FILE, masks)
        save_file(Head(layout).state_dict(), str(scratch / HEAD_FILE))
        write_run_manifest(
            scratch,
            RunManifest(
                smp_pipeline_version="benchmark",
                method="smp-l",
                density=sum(entry.kept for entry in matrices.values())
                / sum(entry.size for entry in matrices.values()),
                base_model=BaseModel(str(model.resolve()), None, "bert", digest),
                task=TaskLayout(
                    kind="classification",
                    labels=("0", "1"),
                    text_column="text",
                    text_pair_column=None,
                    label_column="label",
                    max_length=max_length,
                    metric="accuracy",
                ),
                head=layout,
                train_data=data,
                validation_data=data,
                masks_sha256=sha256_file(scratch / MASKS_FILE),
                head_sha256=sha256_file(scratch / HEAD_FILE),
                weights_sha256=None,
                matrices=matrices,
                metrics={},
                settings={"density": density, "seed": seed},
                versions={},
                hardware={},
                training={"steps": 0},
            ),
        )
    return directory
