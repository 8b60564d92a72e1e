"""`--format delta`: what a run changes of its base model, written and put together again."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, from_numpy
from transformers import PreTrainedModel

from pipeline import __version__
from pipeline.artifacts.bake import apply_masks
from pipeline.artifacts.base_model import BaseFiles, load_base_encoder, tensor_sha256
from pipeline.artifacts.classifier import TextClassifier, load_head
from pipeline.artifacts.delta import (
    DELTA_FILE,
    BaseTensor,
    DeltaContent,
    DeltaManifest,
    TokenizerFile,
    masks_sha256,
    read_content,
    read_delta,
    write_content,
    write_delta_manifest,
)
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.artifacts.mask_codec import decode_masks, encode_masks
from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.run import (
    HEAD_FILE,
    MASKS_FILE,
    RunManifest,
    prunes,
    read_run,
    trains_weights,
)
from pipeline.artifacts.trained import (
    TrainedModel,
    check_densities,
    check_files,
    check_length,
    load_tokenizer,
)
from pipeline.config import ExportConfig
from pipeline.errors import ArtifactError, ConfigurationError, ModelError, VerificationError
from pipeline.status import status_line

__all__ = ["export_delta", "load_delta"]

Masks = Mapping[str, NDArray[np.bool_]]

# Up to that, saying where the base model has a tensor or a file takes about as much as the thing.
_SMALL_BYTES = 1024

_CARD = """# {base}, pruned to density {density:.3g}: delta

What training changed of {base} ({model_type}), and nothing else: {summary}.

It is no model yet. With the base model, whose encoder weights must have the SHA-256
`{sha256}`,
smp-pipeline makes any format of it, the same model.onnx as from the run, bit for bit:

    smp-pipeline export --from-delta DIR --format packed --output-dir MODEL

Add `--model` if the base model is elsewhere.

Task: {task}. Trained with {method}; on validation data: {metrics}.
"""


def export_delta(config: ExportConfig) -> DeltaManifest:
    """Write what a run changes of its base model, checked by putting it together again.

    Returns:
        The manifest that was written.

    Raises:
        ArtifactError: the run directory is incomplete, corrupt, or was changed.
        ConfigurationError: the output directory is taken, or the run's weights are not the base
            model's.
        MachineError: the disk is full.
        ModelError: the base model is missing, or another one.
        VerificationError: what was written does not give the run; nothing is left of it.
    """
    assert config.run is not None
    with (
        status_line("reading the run") as status,
        staged_directory(config.output_dir) as directory,
    ):
        run = read_run(config.run)
        if trains_weights(run.method):
            other = "packed" if prunes(run.method) else "dense"
            raise ConfigurationError(
                f"--format delta stores masks over the base model's weights, and {config.run} has "
                f"others (it was trained with --method {run.method}, which changes all weights); "
                f"use --format {other}"
            )
        check_files(config.run, run)
        tokenizer = _tokenizer_files(config.run)
        encoder = load_base_encoder(run.base_model, config.model, owner=f"the run {config.run}")
        masks = read_masks(config.run / MASKS_FILE)
        check_densities(config.run, run, masks)
        head = load_head(config.run / HEAD_FILE, run.head).state_dict()

        status.update("coding the masks")
        base = BaseFiles.locate(run.base_model, config.model)
        from_base = base.equal_tensors({n: t for n, t in head.items() if t.nbytes > _SMALL_BYTES})
        stored = _not_from_base(base, tokenizer)
        sizes = write_content(
            directory,
            DeltaContent(
                masks=encode_masks(masks, _weights(encoder, run, config.run)),
                head={name: t.numpy() for name, t in head.items() if name not in from_base},
                tokenizer={name: tokenizer[name] for name in stored},
            ),
        )
        manifest = DeltaManifest(
            smp_pipeline_version=__version__,
            run=run,
            delta_sha256=sha256_file(directory / DELTA_FILE),
            masks_sha256=masks_sha256(masks),
            head_from_base={
                name: BaseTensor(key, tensor_sha256(head[name])) for name, key in from_base.items()
            },
            tokenizer={
                name: TokenizerFile(_sha256(content), len(content), name in stored)
                for name, content in tokenizer.items()
            },
            **sizes,
        )
        write_delta_manifest(directory, manifest)
        _write_card(directory, manifest)

        status.update("putting it together again")
        rebuilt = load_delta(directory, read_delta(directory), model=config.model)
        _compare(rebuilt, masks, head)
    return manifest


def load_delta(directory: Path, delta: DeltaManifest, *, model: str | None) -> TrainedModel:
    """Load a delta and its base model, and multiply the masks in.

    Args:
        directory: the delta directory.
        delta: its manifest.
        model: the base model, if it is not where the manifest says.

    Returns:
        what :func:`pipeline.artifacts.trained.load_run` gives for the run, bit for bit.

    Raises:
        ArtifactError: the delta is incomplete, corrupt, or was changed.
        ModelError: the base model is missing, another one, or lacks what the delta takes from it.
    """
    run, content = delta.run, read_content(directory, delta)
    encoder = load_base_encoder(run.base_model, model, owner=f"the delta {directory}")
    check_length(directory, run, encoder)
    base = BaseFiles.locate(run.base_model, model)
    weights = _weights(encoder, run, directory)
    masks = decode_masks(content.masks, weights, source=directory / DELTA_FILE)
    if masks_sha256(masks) != delta.masks_sha256:
        raise ArtifactError(
            f"{directory / DELTA_FILE} is corrupt: its masks have another checksum; "
            "copy the delta again"
        )
    check_densities(directory, run, masks)
    apply_masks(encoder, masks)
    head = _head(directory, delta, content, base)
    tokenizer_files = _tokenizer(directory, delta, content, base)
    # The run's two readers want files.
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in tokenizer_files.items():
            (Path(scratch) / name).write_bytes(data)
        save_file(head, str(Path(scratch) / HEAD_FILE))
        try:
            tokenizer = load_tokenizer(Path(scratch))
            rebuilt = load_head(Path(scratch) / HEAD_FILE, run.head)
        except ArtifactError as error:
            raise ArtifactError(
                f"{directory} is corrupt: its tokenizer and head do not fit its manifest; "
                "copy the delta again"
            ) from error
    return TrainedModel(tokenizer, TextClassifier(encoder, rebuilt, run.head).eval(), masks)


def _tokenizer_files(directory: Path) -> dict[str, bytes]:
    """File name -> content of a run's tokenizer."""
    tokenizer = load_tokenizer(directory)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        names = sorted(path.name for path in Path(scratch).iterdir())
    return {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}


def _not_from_base(base: BaseFiles, files: Mapping[str, bytes]) -> set[str]:
    """The files of a tokenizer that have to be stored."""
    try:
        given = base.tokenizer()
    except ModelError:  # the run's tokenizer need not have come from beside the weights
        given = {}
    return {
        name
        for name, content in files.items()
        if len(content) <= _SMALL_BYTES or given.get(name) != content
    }


def _weights(
    encoder: PreTrainedModel, run: RunManifest, owner: Path
) -> dict[str, NDArray[np.float32]]:
    """The frozen weights of the pruned matrices; they share memory with the encoder's."""
    weights = {
        name: parameter.detach().numpy()
        for name, parameter in encoder.named_parameters()
        if name in run.matrices
    }
    for name, matrix in run.matrices.items():
        if name not in weights or weights[name].shape != matrix.shape:
            raise ArtifactError(
                f"{owner} is corrupt: the base model has no matrix {name} of shape "
                f"{list(matrix.shape)}; copy the directory again"
            )
    return weights


def _head(
    directory: Path, delta: DeltaManifest, content: DeltaContent, base: BaseFiles
) -> dict[str, Tensor]:
    """The head's tensors, stored and from the base model."""
    names = {name: tensor.name for name, tensor in delta.head_from_base.items()}
    tensors = base.read_tensors(names)
    for name, tensor in delta.head_from_base.items():
        if name not in tensors or tensor_sha256(tensors[name]) != tensor.sha256:
            raise ModelError(
                f"--model {base.model}: its checkpoint does not have the tensor {tensor.name} that "
                f"the head of {directory} is made of; give the checkpoint that the run was trained "
                "from, language-model head included"
            )
    return tensors | {name: from_numpy(array) for name, array in content.head.items()}


def _tokenizer(
    directory: Path, delta: DeltaManifest, content: DeltaContent, base: BaseFiles
) -> dict[str, bytes]:
    """File name -> content of the tokenizer, stored and from the base model."""
    files = dict(content.tokenizer)
    missing = {name: facts for name, facts in delta.tokenizer.items() if not facts.stored}
    given = base.tokenizer() if missing else {}
    for name, facts in missing.items():
        if _sha256(given.get(name, b"")) != facts.sha256:
            versions = delta.run.versions
            packages = " and ".join(
                f"{package} {versions[package]}"
                for package in ("transformers", "tokenizers")
                if package in versions
            )
            raise ModelError(
                f"--model {base.model}: its tokenizer gives another {name} than {directory} was "
                "made with; put the base model's own tokenizer beside its weights, or install "
                f"what the run was trained with ({packages or 'see its manifest'})"
            )
        files[name] = given[name]
    return files


def _compare(rebuilt: TrainedModel, masks: Masks, head: Mapping[str, Tensor]) -> None:
    # Tokenizer files and base model were compared by their hashes on the way.
    found = rebuilt.classifier.head.state_dict()
    same_masks = rebuilt.masks.keys() == masks.keys() and all(
        np.array_equal(rebuilt.masks[name], mask) for name, mask in masks.items()
    )
    same_head = found.keys() == head.keys() and all(
        tensor_sha256(found[name]) == tensor_sha256(tensor) for name, tensor in head.items()
    )
    if not (same_masks and same_head):
        raise VerificationError(
            f"the delta does not give back the run's {'head' if same_masks else 'masks'}; "
            "nothing was written"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_card(directory: Path, delta: DeltaManifest) -> None:
    run, base = delta.run, delta.run.base_model
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in run.metrics.items())
    card = _CARD.format(
        base=Path(base.id).name if Path(base.id).is_absolute() else base.id,
        model_type=base.model_type,
        sha256=base.sha256,
        density=run.density,
        summary=delta.summary(),
        task=", ".join(run.task.labels) or run.task.kind,
        method=run.method,
        metrics=metrics or "not measured",
    )
    (directory / "README.md").write_text(card, encoding="utf-8")
