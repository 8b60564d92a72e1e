"""The report of benchmarks/size.py as Markdown."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.table_head import head, write_lines
from pipeline.markdown import markdown_table, plain

NOTES = """\
Ratios are to the first row, in the same session. *Bits a weight* is what the pruned matrices take
in the file, positions and values. The bound beside it is the entropy of masks of which only each
matrix's density is known, plus the bits of the values that remain. *Load* is the time to open a
session, *memory* the peak of a process that opens it and runs one text of full length; both are
medians of five fresh processes on one thread, in random order. *Logits* is the largest difference
from the first row's.
"""


def write_table(content: Mapping[str, Any], path: Path) -> None:
    """Write the report on what was measured."""
    write_lines(_report(content), path)


def _report(content: Mapping[str, Any]) -> Iterator[str]:
    yield from head("Small files", "size", content)
    yield NOTES
    for model in content["models"]:
        yield from _model(model)


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    masks = "trained masks" if model["kind"] == "trained" else "random weights under random masks"
    yield f"## {plain(model['run'])}: {masks}, density {model['density']:.3g}"
    yield ""
    values = ", ".join(
        f"{model['entropy_bits'] + bits:.3f} with {name} values"
        for name, bits in model["value_bits"].items()
    )
    yield (
        f"{model['weights']:,} weights in pruned matrices. Bound: {model['entropy_bits']:.3f} bits "
        f"a weight for the positions; {values}. {model['texts']} texts, largest logit "
        f"{model['largest_logit']:.2g}."
    )
    yield ""
    trained = model["kind"] == "trained"
    headers = ["format", "bytes", "ratio", "bits a weight", "load, ms", "ratio"]
    headers += ["memory, MB", "logits", *(["accuracy"] if trained else [])]
    first = next(iter(model["formats"].values()))
    rows = []
    for name, found in model["formats"].items():
        row = [
            name,
            f"{found['model_bytes']:,}",
            f"{found['model_bytes'] / first['model_bytes']:.3f}",
            f"{found['bits_per_weight']:.3f}",
            f"{found['load_ms']:.0f}",
            f"{found['load_ms'] / first['load_ms']:.2f}",
            f"{found['peak_rss_bytes'] / 1e6:.0f}",
            f"{found['largest_logit_difference']:.2g}",
        ]
        rows.append(row + ([f"{found['accuracy']:.4f}"] if trained else []))
    yield markdown_table(headers, rows)
    yield ""
    delta = model["delta"]
    yield (
        f"Delta: {delta['directory_bytes']:,} bytes in all, {delta['mask_bytes']:,} of them masks: "
        f"{delta['mask_bits_per_weight']:.3f} bits a weight, "
        f"{delta['mask_bits_per_weight'] / model['entropy_bits']:.2f} of the bound; decoded in "
        f"{delta['decode_cpu_seconds']:.3f} s of one core, "
        f"{model['weights'] / 1e6 / delta['decode_cpu_seconds']:.0f} million weights a second."
    )
    yield ""
