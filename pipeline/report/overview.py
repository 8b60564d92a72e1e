"""What a reader sees first: warnings, a row a model, quality against latency and size."""

from collections.abc import Sequence

from pipeline.artifacts.benchmark import Benchmark, Estimate, ModelResult
from pipeline.report.charts import Point, scatter
from pipeline.report.document import Block, Charts, Section, Table, Text
from pipeline.report.sources import Source, same_data, signed
from pipeline.report.svg import Drawing
from pipeline.report.text import (
    NOT_MEASURED,
    and_list,
    interval,
    metric_title,
    number,
    ratio,
    rounded,
)

__all__ = ["latency_scatter", "overview", "runs_on", "size_scatter", "steadiness", "warnings"]


def overview(sources: Sequence[Source]) -> list[Block]:
    """The start of a report: which files, what to know about them, and the main figures."""
    blocks: list[Block] = []
    if len(sources) > 1:
        limits = (
            "Quality is compared between files of the same data. Latencies and their ratios are "
            "those of one file, on one machine: none is compared with another file's."
        )
        blocks.append(Section("Files", [_files(sources), Text(limits)]))
    else:
        benchmark = sources[0].benchmark
        count = len(benchmark.models)
        blocks.append(
            Text(
                f"{count} model{'s' * (count > 1)} on {benchmark.machine.cpu}, "
                f"{benchmark.created}, smp-pipeline {benchmark.smp_pipeline_version}."
            )
        )
    glance: list[Block] = []
    for source in sources:
        notes = [Text(line, warning=True) for line in warnings(source.benchmark)]
        main = [*notes, *_main_table(source)]
        glance += [Section(source.label, main)] if source.label else main
    drawings = [latency_scatter(source) for source in sources]
    drawings += [size_scatter(group) for group in same_data(sources)]
    glance.append(Charts([drawing for drawing in drawings if drawing is not None]))
    return [*blocks, Section("At a glance", glance)]


def _files(sources: Sequence[Source]) -> Table:
    rows = []
    for source in sources:
        benchmark = source.benchmark
        data = benchmark.data
        rows.append(
            [
                source.label,
                benchmark.machine.cpu,
                NOT_MEASURED if data is None else f"{data.rows:,} of {data.source}",
                steadiness(benchmark),
                benchmark.created,
            ]
        )
    headers = ["file", "processor", "examples", "timing", "finished"]
    return Table(headers, rows, numeric_from=len(headers))


def steadiness(benchmark: Benchmark) -> str:
    """How many cells were noisy or unusable, in words."""
    verdicts = [measured.steadiness.verdict for measured in benchmark.cells]
    found = [
        f"{verdict} in {verdicts.count(verdict)} of {len(verdicts)} cells"
        for verdict in ("noisy", "unusable")
        if verdict in verdicts
    ]
    return ", ".join(found) or "steady"


def warnings(benchmark: Benchmark) -> list[str]:
    """What a reader must know before trusting the figures, a sentence or two each."""
    lines = []
    load = benchmark.machine.load_average
    busy = "" if load is None else f" (load average {number(load, 1)} at the start)"
    for verdict, meaning in (
        ("unusable", "No latency is given there, only the runs as they came, in the JSON file."),
        ("noisy", "Ratios suffer less than single latencies; measure again to rely on either."),
    ):
        found = [each for each in benchmark.cells if each.steadiness.verdict == verdict]
        if found:
            # The other cells' reasons are alike and stand with them in the report.
            reasons = " ".join([f"The first, {found[0].cell.name}:", *found[0].steadiness.reasons])
            reasons = f" {reasons}" if found[0].steadiness.reasons else ""
            lines.append(
                f"Timing was {verdict} in {len(found)} of {len(benchmark.cells)} cells{busy}."
                f"{reasons} {meaning}"
            )
    lines += _quality_warnings(benchmark)
    return lines


def _quality_warnings(benchmark: Benchmark) -> list[str]:
    lines = []
    rows = 0 if benchmark.data is None else benchmark.data.rows
    qualities = [(model.name, model.quality) for model in benchmark.models if model.quality]
    cut = {quality.truncated for _, quality in qualities} - {0}
    for truncated in sorted(cut):
        names = [name for name, quality in qualities if quality.truncated == truncated]
        lines.append(
            f"{truncated} of {rows} texts were longer than the "
            f"maximum length of {and_list(names)} and were cut."
        )
    for name, quality in qualities:
        robustness = quality.robustness
        if robustness.changed_labels:
            lines.append(
                f"{name} gave {robustness.changed_labels} of {robustness.texts} texts another "
                "label in a padded batch than alone."
            )
    return lines


def runs_on(model: ModelResult) -> str:
    """Engine and provider, in short."""
    return f"{model.engine}, {model.provider.removesuffix('ExecutionProvider')}"


def _main_table(source: Source) -> list[Block]:
    benchmark = source.benchmark
    task = benchmark.task
    headers = ["model", "runs on", "density", "directory, MB", "p50, ms", "p50 ratio to the first"]
    rows = []
    for position, model in enumerate(benchmark.models):
        summary = model.timings[0].summary
        rows.append(
            [
                model.name,
                runs_on(model),
                "unknown" if model.export is None else number(model.export.density, 3),
                NOT_MEASURED if model.size is None else rounded(model.size.directory_bytes / 1e6),
                "unusable" if summary is None else rounded(summary.p50_ms.value),
                "unusable" if summary is None else ratio(summary.ratio, position),
            ]
        )
        if task is not None and model.quality is not None:
            rows[-1].append(interval(model.quality.metrics[task.metric], 4))
    headers += [] if task is None else [task.metric]
    measured = benchmark.cells[0]
    verdict = measured.steadiness.verdict
    quality = (
        "Quality was not measured: no labelled texts were given (--validation-file)."
        if benchmark.data is None
        else f"Quality is over {benchmark.data.rows:,} examples."
    )
    cell = measured.cell.name + ("" if verdict == "steady" else f" ({verdict})")
    return [
        Table(headers, rows, numeric_from=2),
        Text(f"Latency: {cell}. {quality} In brackets stand 95 % intervals."),
    ]


def latency_scatter(source: Source, cell: int = 0) -> Drawing | None:
    """The task's metric (without one, the size) against the median latency of one cell.

    Returns:
        None where the cell is unusable, or no model has both.
    """
    benchmark = source.benchmark
    task = benchmark.task
    points = []
    for series, model in source.series():
        summary = model.timings[cell].summary
        if summary is None:
            continue
        if task is None and model.size is not None:
            points.append(Point(series, summary.p50_ms, _exact_mb(model)))
        elif task is not None and model.quality is not None:
            points.append(Point(series, summary.p50_ms, model.quality.metrics[task.metric]))
    measured = benchmark.cells[cell]
    noisy = ", noisy" if measured.steadiness.verdict == "noisy" else ""
    quantity = "size" if task is None else task.metric
    return scatter(
        f"{metric_title(quantity)} against latency",
        f"{measured.cell.name}{noisy}{source.suffix}",
        points,
        x_label="median latency, ms",
        y_label="directory, MB" if task is None else task.metric,
        more_is_better=task is not None,
    )


def size_scatter(group: Sequence[Source]) -> Drawing | None:
    """The task's metric against the size of all models over the same data."""
    task, data = group[0].benchmark.task, group[0].benchmark.data
    assert task is not None and data is not None
    points = [
        Point(series, _exact_mb(model), model.quality.metrics[task.metric])
        for source in group
        for series, model in source.series()
        if model.size is not None and model.quality is not None
    ]
    return scatter(
        f"{metric_title(task.metric)} against size",
        f"{data.rows:,} examples{signed(group)}",
        points,
        x_label="model directory, MB",
        y_label=task.metric,
    )


def _exact_mb(model: ModelResult) -> Estimate:
    assert model.size is not None
    size_mb = model.size.directory_bytes / 1e6
    return Estimate(size_mb, size_mb, size_mb)
