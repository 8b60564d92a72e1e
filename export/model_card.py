"""The model card: README.md of a model directory, for people and for the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from export.usage import hub_tag, usage
from pipeline.artifacts.exported import MANIFEST_FILE, MODEL_FILE, ExportManifest
from pipeline.artifacts.manifest import from_json
from pipeline.artifacts.run import (
    DataFile,
    MatrixDensity,
    Pattern,
    TaskLayout,
    prunes,
    trains_weights,
)

__all__ = ["write_model_card"]

_METHODS = {
    "smp-s": "Static Model Pruning, score-based (SMP-S): layers share the density by their scores",
    "smp-l": "Static Model Pruning, local (SMP-L): every matrix has the same density",
    "finetune": "plain fine-tuning of all weights; nothing is pruned",
    "magnitude": "magnitude pruning: every matrix keeps its largest weights, which are fine-tuned",
    "movement": "movement pruning: every matrix keeps the weights with the largest learned scores, "
    "and the weights are fine-tuned",
    "soft-movement": "soft movement pruning: one threshold over the learned scores of all "
    "matrices, and the weights are fine-tuned",
}

_PATTERNS = {
    "2:4": "2:4, at most 2 of 4 neighbours along the input remain",
    "4:8": "4:8, at most 4 of 8 neighbours along the input remain",
    "block-4x1": "block-4x1, 4 outputs of one input remain together or not at all",
}


@dataclass(frozen=True)
class _Record:
    """What the card needs of the run, out of the manifest's ``run``."""

    train_data: DataFile
    validation_data: DataFile
    matrices: Mapping[str, MatrixDensity]
    metrics: Mapping[str, float]
    pattern: Pattern = "unstructured"


def write_model_card(directory: Path, manifest: ExportManifest) -> None:
    """Write ``README.md`` into a (staged) model directory that is otherwise complete.

    Raises:
        ArtifactError: the manifest's record of the run is incomplete.
    """
    run = from_json(_Record, manifest.run, source=directory / MANIFEST_FILE)
    sections = [
        _front_matter(manifest),
        f"# {_title(manifest)}",
        _summary(manifest, run),
        "## Results\n\n" + _metrics(run),
        "## Files\n\n" + _files(directory),
        "## Density\n\n" + _densities(manifest, run),
        "## Verification\n\n" + _verification(manifest),
        "## Data\n\n" + _data(run),
        "## Use\n\n" + usage(manifest),
        "## Limits\n\n" + _limits(manifest),
    ]
    (directory / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _front_matter(manifest: ExportManifest) -> str:
    content: dict[str, object] = {
        "library_name": "onnx",
        "pipeline_tag": hub_tag(manifest.task.kind),
        "tags": ["onnx", "onnxruntime", "smp-pipeline", manifest.method],
    }
    if _is_hub_id(manifest.base_model.id):
        content["base_model"] = manifest.base_model.id
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"


def _is_hub_id(model: str) -> bool:
    looks_local = model.count("/") > 1 or model.startswith((".", "/", "~"))
    return not looks_local and not Path(model).is_dir()


def _base_name(manifest: ExportManifest) -> str:
    model = manifest.base_model.id
    return model if _is_hub_id(model) else Path(model).name


def _title(manifest: ExportManifest) -> str:
    if not prunes(manifest.method):
        return f"{_base_name(manifest)}, fine-tuned"
    return f"{_base_name(manifest)}, encoder matrices pruned to density {manifest.density:.3g}"


def _summary(manifest: ExportManifest, run: _Record) -> str:
    task = manifest.task
    unchanged = ""
    if not trains_weights(manifest.method):
        unchanged = " The remaining weights are the pretrained ones, unchanged."
    return "\n".join(
        [
            f"- Base model: `{_base_name(manifest)}` ({manifest.base_model.model_type}), SHA-256 "
            f"of its weights `{manifest.base_model.sha256}`",
            f"- Method: {_METHODS[manifest.method]}.{unchanged}",
            *([] if run.pattern == "unstructured" else [f"- Pattern: {_PATTERNS[run.pattern]}."]),
            f"- Predicts: {_predicts(task)}, from at most {task.max_length} tokens",
            f"- Format: {_format(manifest)}, ONNX opset {manifest.opset}",
            *_changes(manifest),
            f"- Made by smp-pipeline {manifest.smp_pipeline_version}",
        ]
    )


def _predicts(task: TaskLayout) -> str:
    match task.kind:
        case "regression":
            return "one number"
        case "question-answering":
            none = ", or none" if task.answers is not None and task.answers.no_answer else ""
            return f"the span of a context that answers a question{none}"
        case "token-classification":
            return f"for each token one of {', '.join(task.labels)}"
    return f"one of {', '.join(task.labels)}"


def _format(manifest: ExportManifest) -> str:
    stored = f"{manifest.values} values, {manifest.embeddings} embeddings"
    if manifest.engine is None:
        return f"{manifest.format}, {stored}"
    computing = f"computing in {manifest.compute} ({manifest.engine.summary()})"
    return f"{manifest.format}, {stored}, {computing}"


def _changes(manifest: ExportManifest) -> list[str]:
    """What of the base model is not there any more, or is written in another way."""
    changes = []
    if manifest.vocabulary is not None:
        vocabulary = manifest.vocabulary
        changes.append(
            f"Vocabulary: {vocabulary.summary()} The corpus had {vocabulary.texts:,} texts "
            f"(`{vocabulary.corpus}`)."
        )
    if manifest.structure is not None:
        changes.append(f"Structure: {manifest.structure.summary()}.")
    done = [name for name, count in manifest.fusions.items() if count]
    if done:
        changes.append(f"Operators of ONNX Runtime's own for {', '.join(done)}.")
    return [f"- {change}" for change in changes]


def _metrics(run: _Record) -> str:
    rows = [(name, f"{value:.4f}") for name, value in run.metrics.items()]
    note = f"On the run's {run.validation_data.rows} validation examples, in PyTorch."
    return f"{note}\n\n{_table(('metric', 'value'), rows)}"


def _files(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir() if path.name != "README.md")
    rows = [(f"`{name}`", f"{(directory / name).stat().st_size:,}") for name in names]
    return _table(("file", "bytes"), rows)


def _densities(manifest: ExportManifest, run: _Record) -> str:
    if not run.matrices:
        return "Nothing is pruned: the density is 1."
    kept: dict[str, int] = {}
    size: dict[str, int] = {}
    stored: dict[str, set[str]] = {}
    for name, matrix in run.matrices.items():
        kind = matrix.matrix_type
        kept[kind] = kept.get(kind, 0) + matrix.kept
        size[kind] = size.get(kind, 0) + matrix.size
        stored.setdefault(kind, set()).add(manifest.encodings[name])
    rows = [
        (kind, f"{size[kind]:,}", f"{kept[kind] / size[kind]:.4f}", ", ".join(sorted(stored[kind])))
        for kind in size
    ]
    rows.append(("all", f"{sum(size.values()):,}", f"{manifest.density:.4f}", ""))
    return (
        "Share of the weights that remain, over all layers. Embeddings, biases and LayerNorm are "
        f"whole.\n\n{_table(('matrix type', 'weights', 'density', 'stored as'), rows)}"
    )


def _verification(manifest: ExportManifest) -> str:
    checked = manifest.verification
    reference = "PyTorch" if checked.reference == "pytorch" else "the graph it was converted from"
    inputs = f"{checked.texts} validation texts" if checked.texts else "made-up inputs"
    answers = manifest.task.kind == "question-answering"
    predicted = "likeliest starts and ends" if answers else "predicted labels"
    text = (
        f"ONNX Runtime {manifest.versions.get('onnxruntime', '')} against {reference} on "
        f"{inputs}: the largest difference of a logit is "
        f"{checked.largest_logit_difference:.3g} ({checked.tolerance:.3g} was allowed), and "
        f"{checked.label_agreement:.1%} of the {predicted} agree."
    )
    if checked.reference == "onnx":
        return text
    rounding = {"fp32": "", "fp16": ", rounded to float16", "int8": ", rounded to int8 by row"}
    rounded = rounding[manifest.values]
    return (
        f"{text} The pruned matrices in the file, decoded, equal the pruned ones in every "
        f"weight{rounded}."
    )


def _data(run: _Record) -> str:
    rows = [
        (use, f"`{_source(data)}`", f"{data.rows:,}", f"{data.truncated:,}")
        for use, data in (("training", run.train_data), ("validation", run.validation_data))
    ]
    return _table(("use", "source", "examples", "cut to the model's length"), rows)


def _source(data: DataFile) -> str:
    # A file's directory is the business of the machine that trained.
    return data.source if data.sha256 is None else Path(data.source).name


def _limits(manifest: ExportManifest) -> str:
    limits = [
        "Measured on the data above only; other domains and languages are untested.",
        "The base model's licence applies, and so do the limits of its pretraining data.",
        f"Texts longer than {manifest.task.max_length} tokens must be cut, as above.",
    ]
    if manifest.task.kind == "question-answering":
        limits.append(
            "A long context is cut into windows, of which the code above takes the first; "
            "the best span of all windows, its end not before its start, is the answer."
        )
    if prunes(manifest.method) and manifest.format != "engine":
        limits.append(
            "Zeros make the file smaller once it is packed or compressed; stock ONNX Runtime "
            "computes with them all the same, so they do not make it faster."
        )
    if manifest.format == "packed":
        limits.append(
            f"`{MODEL_FILE}` is small on disk only: a session rebuilds the weights in memory when "
            "it opens. With graph optimisation off, it does so at every call."
        )
    if manifest.format == "engine":
        limits.append(
            f"`{MODEL_FILE}` has operators of its own: ONNX Runtime opens it only with the "
            "library above."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
