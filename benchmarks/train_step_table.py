"""The report of benchmarks/train_step.py as Markdown."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.table_head import head, write_lines
from benchmarks.train_step_subjects import FINETUNE, PARTS, SORTED
from pipeline.markdown import markdown_table, plain

NOTES = """\
Medians over turns in random order, ratios with their 95 % interval. *Fine-tuning* trains all
weights of the encoder, embeddings included, and a linear head; *SMP-S* trains the scores alone, in
the middle of a run, so that its density falls and its scores move; *full sort* is SMP-S with the
selection of the reference implementation, which sorts every matrix. Parts are from other steps than
the totals. *Memory* is the peak of a process that trains in that way alone: what is allocated on a
GPU; without one, the resident set, of which the libraries take some 0.5 GB.
"""


def write_table(content: Mapping[str, Any], path: Path) -> None:
    """Write the report on what was measured."""
    write_lines(_report(content), path)


def _report(content: Mapping[str, Any]) -> Iterator[str]:
    yield from head("What a training step costs", "train_step", content)
    yield NOTES
    for cell in content["cells"]:
        setting = cell["setting"]
        yield (
            f"## {plain(content['model'])}, {setting['precision']}: {setting['batch_size']} texts "
            f"of {setting['sequence_length']} tokens"
        )
        yield ""
        first, last = cell["density"]
        yield f"{setting['turns']} turns; density {first:.3f} to {last:.3f}."
        yield ""
        headers = ["step", "ms", "to fine-tuning", "to full sort", *(f"{p}, ms" for p in PARTS)]
        rows = [_row(name, subject) for name, subject in cell["subjects"].items()]
        yield markdown_table([*headers, "trained", "memory, MB"], rows)
        yield ""


def _row(name: str, subject: Mapping[str, Any]) -> list[str]:
    return [
        name,
        f"{subject['seconds']['value'] * 1e3:.1f}",
        *(_ratio(subject["ratios"].get(other)) for other in (FINETUNE, SORTED)),
        *(f"{subject['parts'][part] * 1e3:.1f}" for part in PARTS),
        f"{subject['trained']:,}",
        f"{subject['peak_bytes'] / 1e6:,.0f}",
    ]


def _ratio(ratio: Mapping[str, float] | None) -> str:
    if ratio is None:
        return "1"
    return f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
