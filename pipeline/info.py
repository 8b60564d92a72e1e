"""What a run directory, a model directory or a benchmark holds, for people and for machines."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline import native
from pipeline.artifacts import delta, exported, run, triton
from pipeline.artifacts.files import directory_size_bytes
from pipeline.artifacts.manifest import to_json
from pipeline.errors import ArtifactError

__all__ = ["describe", "describe_native", "print_description", "print_exported"]


def describe(path: Path) -> dict[str, Any]:
    """The facts about a directory or file that a stage wrote, as plain JSON types.

    Raises:
        ArtifactError: it is nothing that this project wrote, corrupt, or of a newer schema.
    """
    if path.is_file():
        from pipeline.artifacts.benchmark import read_benchmark

        return {"path": str(path), **to_json(read_benchmark(path))}
    kind = _kind(path / run.MANIFEST_FILE)
    if kind == run.KIND:
        trained = run.read_run(path)
        facts: dict[str, Any] = to_json(trained)
        facts["density_by_type"] = _density_by_type(trained.matrices)
    elif kind == exported.KIND:
        model = exported.read_exported(path)
        facts = {**to_json(model), "density_by_type": _density_by_type(model.matrices)}
    elif kind == triton.KIND:
        repository = triton.read_triton(path)
        content = to_json(repository)
        facts = {**content.pop("model"), **content}
        facts["density_by_type"] = _density_by_type(repository.model.matrices)
    elif kind == delta.KIND:
        manifest = delta.read_delta(path)
        content = to_json(manifest)
        facts = {
            **content.pop("run"),
            **content,
            "bits_per_weight": manifest.bits_per_weight,
            "bound_bits_per_weight": manifest.bound_bits_per_weight,
        }
    else:
        raise ArtifactError(
            f"{path}: no run directory, model directory or bench.json; "
            "give what train, export or bench wrote"
        )
    return {"path": str(path), "kind": kind, "size_bytes": directory_size_bytes(path), **facts}


def describe_native() -> dict[str, Any]:
    """The native library's ``path``, the ``isa`` (instruction set) it uses, and its ``version``.

    Raises:
        ConfigurationError: SMP_ENGINE_ISA asks for an instruction set that cannot be had.
        MachineError: the library is missing or cannot be loaded.
    """
    path = str(native.library_path())
    return {"path": path, "isa": native.isa(), "version": native.version()}


def _kind(manifest: Path) -> str | None:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("kind") if isinstance(content, dict) else None


def _density_by_type(matrices: Mapping[str, run.MatrixDensity]) -> dict[str, dict[str, float]]:
    """Matrix type -> layer -> density in [0, 1]."""
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for matrix in matrices.values():
        size = max(1, matrix.size)  # of a corrupt run it may be 0
        table[matrix.matrix_type][str(matrix.layer)] = matrix.kept / size
    return dict(table)


def print_description(facts: Mapping[str, Any]) -> None:
    """Print what :func:`describe` gave as tables on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if "models" in facts:
        from pipeline.artifacts.benchmark import read_benchmark
        from pipeline.report import print_benchmark

        print_benchmark(read_benchmark(Path(facts["path"])))
        return
    table = Table(show_header=False, title=str(facts["path"]), title_justify="left")
    for name, value in _rows(facts):
        table.add_row(name, value)
    console.print(table)
    by_type = facts.get("density_by_type") or {}
    if by_type:
        # A row a layer: twelve columns and more would not fit a terminal.
        densities = Table(title="density by layer and matrix type", title_justify="left")
        for heading in ("layer", *by_type):
            densities.add_column(heading, justify="right")
        for layer in sorted({layer for row in by_type.values() for layer in row}, key=int):
            cells = (row.get(layer) for row in by_type.values())
            densities.add_row(layer, *("" if d is None else f"{d:.3f}" for d in cells))
        console.print(densities)


def print_exported(directory: Path, facts: Mapping[str, Any]) -> None:
    """Print what an export gave as a table on stdout.

    Args:
        directory: where it wrote to.
        facts: its result, as plain JSON types: a manifest, or what is known of an ONNX file that
            has none.
    """
    from rich.console import Console
    from rich.table import Table

    if (directory / exported.MANIFEST_FILE).is_file():
        print_description(describe(directory))
        return
    table = Table(show_header=False, title=str(directory), title_justify="left")
    sizes = (facts["size_bytes"], facts["original_size_bytes"])
    table.add_row("model.onnx", f"{sizes[0]:,} bytes (the original {sizes[1]:,})")
    table.add_row("format", f"engine, {facts['compute']}")
    table.add_row(*_agreement(facts["verification"]))
    Console().print(table)


def _agreement(verification: Mapping[str, Any]) -> tuple[str, str]:
    names = {"pytorch": "against PyTorch", "onnx": "against the original"}
    inputs = f"{verification['texts']} texts" if verification["texts"] else "made-up inputs"
    return (
        names[verification["reference"]],
        f"{inputs}, logits within {verification['largest_logit_difference']:.2g}, "
        f"{verification['label_agreement']:.1%} same labels",
    )


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    task, base = facts["task"], facts["base_model"]
    rows = [
        ("kind", str(facts["kind"])),
        ("method", str(facts["method"])),
        ("density", f"{facts['density']:.4f}"),
        ("base model", f"{base['id']} ({base['model_type']})"),
        ("task", ", ".join(task["labels"]) or task["kind"]),
        ("size", f"{facts['size_bytes']:,} bytes"),
    ]
    if facts["kind"] == run.KIND:
        rows.append(("head", f"{facts['head']['kind']}, pooling {facts['head']['pooling']}"))
        rows.append(("training", f"{facts['training'].get('steps')} steps"))
        for name, value in facts["metrics"].items():
            rows.append((f"validation {name}", "nan" if value is None else f"{value:.4f}"))
    elif facts["kind"] == delta.KIND:
        bits, bound = facts["bits_per_weight"], facts["bound_bits_per_weight"]
        rows += [
            ("masks", f"{facts['masks_bytes']:,} bytes, {bits:.3f} bits a weight"),
            ("entropy bound", f"{bound:.3f} bits a weight, by the matrices' densities"),
            ("head", _stored(facts["head_bytes"], facts["head_from_base"])),
            (
                "tokenizer",
                _stored(
                    facts["tokenizer_bytes"],
                    [name for name, file in facts["tokenizer"].items() if not file["stored"]],
                ),
            ),
        ]
    else:
        if facts["kind"] == triton.KIND:
            names = f"{facts['model_name']} (tokens), {facts['text_model_name']} (texts)"
            rows += [("models in Triton", names), ("library in Triton", facts["library"])]
        compute = f", {facts['compute']}" if facts["compute"] else ""
        rows += [
            ("format", f"{facts['format']}{compute}, opset {facts['opset']}"),
            ("stored", f"{facts['values']} values, {facts['embeddings']} embeddings"),
            *_passes(facts),
            ("inputs", ", ".join(facts["inputs"])),
            _agreement(facts["verification"]),
        ]
    return rows


def _stored(size_bytes: int, from_base: Collection[str]) -> str:
    given = f"; from the base model: {', '.join(from_base)}" if from_base else ""
    return f"{size_bytes:,} bytes{given}"


def _passes(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What graph passes did to an exported model."""
    rows = []
    fused = [f"{name} {count}" for name, count in facts["fusions"].items()]
    if fused:
        rows.append(("fused", ", ".join(fused)))
    if facts["structure"] is not None:
        structure = facts["structure"]
        rows.append(("removed", f"{structure['weights']:,} weights of empty structure"))
    if facts["vocabulary"] is not None:
        vocabulary = facts["vocabulary"]
        kept, before = vocabulary["tokens"], vocabulary["tokens_before"]
        rows.append(("vocabulary", f"{kept:,} of {before:,} tokens"))
    return rows
