"""The section on how long the models took, cell by cell."""

from collections.abc import Sequence

from pipeline.artifacts.benchmark import MeasuredCell
from pipeline.report.charts import distribution
from pipeline.report.document import Block, Charts, Details, Section, Table, Text
from pipeline.report.overview import latency_scatter
from pipeline.report.sources import Source
from pipeline.report.text import interval, measured, number, ratio, rounded

__all__ = ["latency_section"]


def latency_section(sources: Sequence[Source]) -> Section:
    """Every cell of every file: a table, and the distribution of the runs."""
    blocks: list[Block] = []
    for source in sources:
        cells = [
            Section(found.cell.name, _cell_blocks(source, index, found))
            for index, found in enumerate(source.benchmark.cells)
        ]
        content: list[Block] = [*cells[:1], _note(source)]
        if len(cells) > 1:
            others = "cell" if len(cells) == 2 else f"{len(cells) - 1} cells"
            content.insert(1, Details(f"The other {others}{source.suffix}", cells[1:]))
        blocks += [Section(f"Latency{source.suffix}", content)] if source.label else content
    return Section("Latency", blocks)


def _cell_blocks(source: Source, index: int, found: MeasuredCell) -> list[Block]:
    steadiness = found.steadiness
    rows, runs = [], []
    has_energy = False
    for position, (series, model) in enumerate(source.series()):
        timing = model.timings[index]
        summary = timing.summary
        if summary is None:
            continue
        runs.append((series, timing.latencies_ms))
        has_energy |= summary.joules_per_text is not None
        joules = summary.joules_per_text
        rows.append(
            [
                model.name,
                measured(summary.p50_ms),
                rounded(summary.p90_ms),
                rounded(summary.p99_ms),
                rounded(summary.texts_per_second),
                ratio(summary.ratio, position),
                "unknown" if joules is None else rounded(joules),
            ]
        )
    verdict = Text(_verdict(found), warning=steadiness.verdict != "steady")
    if not rows:
        return [verdict]
    headers = ["model", "p50, ms", "p90, ms", "p99, ms", "texts/s", "p50 ratio to the first"]
    headers += ["J a text"] if has_energy else []
    noisy = ", noisy" if steadiness.verdict == "noisy" else ""
    drawings = [
        distribution("Distribution of latency", f"{found.cell.name}{noisy}{source.suffix}", runs),
        latency_scatter(source, index) if index else None,  # the first cell's is in the overview
    ]
    return [
        Table(headers, [row[: len(headers)] for row in rows]),
        verdict,
        Charts([drawing for drawing in drawings if drawing is not None]),
    ]


def _verdict(found: MeasuredCell) -> str:
    steadiness = found.steadiness
    reasons = "".join(f" {reason}" for reason in steadiness.reasons)
    control = (
        ""
        if steadiness.control is None
        else f" A second copy of it took {interval(steadiness.control, 3)} of its time."
    )
    return (
        f"{steadiness.verdict.capitalize()}.{reasons} The first model's runs: coefficient of "
        f"variation {number(steadiness.coefficient_of_variation, 3)}, drift "
        f"{steadiness.drift:+.3f}.{control}"
    )


def _note(source: Source) -> Text:
    count = len(source.benchmark.models[0].timings[0].latencies_ms)
    tail = f" The 99th percentile of {count} runs is close to the slowest." if count < 100 else ""
    return Text(
        f"{count} timed runs a model and cell, the models in turn in random order. In brackets "
        "stand 95 % bootstrap intervals; those of ratios are widened by what the second copy of "
        f"the first model was off.{tail}"
    )
