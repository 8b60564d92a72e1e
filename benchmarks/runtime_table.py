"""The report of benchmarks/runtime.py as Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runtime_cells import ratio
from benchmarks.runtime_engines import ENGINES
from benchmarks.table_head import head, write_lines

OURS = "engine-int8"
# A ratio whose interval is wider than this share of it is marked.
WIDE = 0.2

NOTES = """\
Medians are over turns; a turn is one untimed and up to five timed runs of an engine, and all
engines of a cell have their turns in random order, in one session. Behind a median stands the
spread: the 10th to the 90th percentile of the turns over the median. A ratio says how many times
as long the engine took as `{ours}`, with its 95 % bootstrap interval over paired turns; `~` marks
an interval wider than {wide:.0%} of the ratio. An engine is called unsteady in a cell when its
turns vary by more than 10 % or drift by more than 5 %. The weights are random under uniformly
random masks. Engines that do not gain from zeros are timed once for all densities.
"""


def write_table(content: dict[str, Any], path: Path) -> None:
    """Write the report on what runtime.json holds."""
    write_lines(report(content), path)


def report(content: dict[str, Any]) -> Iterator[str]:
    """Its lines."""
    yield from head("The runtime and its peers", "runtime", content)
    if content["left_out"]:
        yield f"Left out, not installed: {', '.join(content['left_out'])}."
        yield ""
    yield NOTES.format(ours=OURS, wide=WIDE)
    titles = {"random": "BERT with random weights", "trained": "A trained model"}
    for name, part in content["parts"].items():
        yield f"## {titles[name]}"
        yield ""
        if "accuracy" in part:
            yield from accuracy(part)
        for model in part["densities"]:
            for threads in dict.fromkeys(cell["threads"] for cell in part["cells"]):
                cells = [cell for cell in part["cells"] if cell["threads"] == threads]
                yield from latency(cells, model, threads)
        yield from stages(part["cells"])
        yield from startup(part["startup"])


def accuracy(part: dict[str, Any]) -> Iterator[str]:
    yield f"Accuracy on {part['texts']} labelled texts:"
    yield ""
    rows = []
    for key, score in part["accuracy"].items():
        value = f"{score['value']:.4f} ({score['low']:.4f} to {score['high']:.4f})"
        rows.append([key, value, f"{part['agreement'][key]:.2%}"])
    first = next(iter(part["accuracy"]))
    yield from table(["engine", "accuracy (95 % interval)", f"same label as {first}"], rows)


def latency(cells: Sequence[dict[str, Any]], model: str, threads: int) -> Iterator[str]:
    """Medians, then ratios, of one density and number of threads."""
    present = {key for cell in cells for key in cell["engines"]}
    keys = {}
    for name, engine in ENGINES.items():
        key = f"{name}@{model}" if engine.sparse else name
        if key in present:
            keys[name] = key
    if not keys:
        return
    plural = "thread" if threads == 1 else "threads"
    yield f"### {model[0].upper()}{model[1:]}, {threads} {plural}"
    yield ""
    yield "Milliseconds a run, and spread:"
    yield ""
    rows = []
    for cell in cells:
        unsteady = [n for n, key in keys.items() if cell["engines"].get(key, {}).get("noisy")]
        medians = [_median(cell, key) for key in keys.values()]
        rows.append([_shape(cell), *medians, ", ".join(unsteady) or "none"])
    titles = [ENGINES[name].title for name in keys]
    yield from table(["batch x sequence", *titles, "unsteady"], rows)
    peers = [name for name in keys if name != OURS]
    if OURS not in keys or not peers:
        return
    yield f"Times as long as {OURS}:"
    yield ""
    rows = [[_shape(cell), *(_ratio(cell, keys[n], keys[OURS]) for n in peers)] for cell in cells]
    yield from table(["batch x sequence", *(ENGINES[name].title for name in peers)], rows)


def stages(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Where our engine's time goes."""
    entries = [
        (cell, key, entry["stages_ms"])
        for cell in cells
        for key, entry in cell["engines"].items()
        if entry["stages_ms"]
    ]
    if not entries:
        return
    names = list(dict.fromkeys(stage for _, _, found in entries for stage in found))
    yield "### Milliseconds a run within the engine's operators, by stage"
    yield ""
    rows = []
    for cell, key, found in entries:
        values = (f"{found[name]:.2f}" if name in found else "" for name in names)
        rows.append([key, str(cell["threads"]), _shape(cell), *values])
    yield from table(["engine", "threads", "batch x sequence", *names], rows)


def startup(entries: dict[str, Any]) -> Iterator[str]:
    if not entries:
        return
    batch, sequence = next(iter(entries.values()))["shape"]
    yield "### Load time, memory, size and exactness"
    yield ""
    yield (
        "Memory is the resident set of a process that opens the model and runs a batch of "
        f"{batch} x {sequence} once, Python and packages (the column before) included. The logits "
        "are compared on padded random texts with those of the dense fp32 model of the same "
        "weights in ONNX Runtime."
    )
    yield ""
    rows = [
        [
            key,
            f"{entry['file_bytes'] / 1e6:,.1f}",
            f"{entry['load_ms']:,.0f}",
            f"{entry['before_resident_bytes'] / 1e6:,.0f}",
            f"{entry['loaded_resident_bytes'] / 1e6:,.0f}",
            f"{entry['ran_resident_bytes'] / 1e6:,.0f}",
            f"{entry['ran_peak_bytes'] / 1e6:,.0f}",
            f"{entry['largest_logit_difference']:.2g} of {entry['largest_logit']:.2g}",
        ]
        for key, entry in entries.items()
    ]
    yield from table(
        [
            "engine",
            "file, MB",
            "load, ms",
            "before, MB",
            "loaded, MB",
            "after a run, MB",
            "peak, MB",
            "largest logit difference",
        ],
        rows,
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield f"| --- |{' ---: |' * (len(headers) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _shape(cell: dict[str, Any]) -> str:
    return f"{cell['batch_size']} x {cell['sequence_length']}"


def _median(cell: dict[str, Any], key: str) -> str:
    entry = cell["engines"].get(key)
    if entry is None:
        return ""
    return f"{entry['median_ms']['value']:.3g} ({entry['spread']:.0%})"


def _ratio(cell: dict[str, Any], peer: str, ours: str) -> str:
    if peer not in cell["engines"] or ours not in cell["engines"]:
        return ""
    found = ratio(cell, peer, ours)
    wide = found["high"] - found["low"] > WIDE * found["value"]
    return f"{'~' if wide else ''}{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
