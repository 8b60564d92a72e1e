"""What people read of a benchmark: the table on the terminal, the Markdown report, the plot."""

from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.artifacts.benchmark import Benchmark, Estimate, LatencyCell, write_benchmark
from pipeline.artifacts.files import staged_file
from pipeline.markdown import markdown_table, plain
from pipeline.operator_report import operator_section, operator_table, plan_lines

__all__ = ["benchmark_table", "markdown_report", "print_benchmark", "write_report"]

_MB = 1e6
_MIB = 2.0**20


def write_report(benchmark: Benchmark, output: Path) -> tuple[Path, Path]:
    """Write a benchmark's JSON file, and its report (.md) and plot (.png) of the same name.

    Existing files are replaced, and only when all three are complete.

    Args:
        benchmark: the benchmark.
        output: the JSON file.

    Returns:
        Where the report and the plot lie.

    Raises:
        MachineError: the disk is full or not writable.
    """
    from pipeline.plots import plot_benchmark

    report, plot = output.with_suffix(".md"), output.with_suffix(".png")
    with (
        staged_file(plot) as staged_plot,
        staged_file(report) as staged_report,
        staged_file(output) as staged_output,
    ):
        write_benchmark(staged_output, benchmark)
        staged_report.write_text(markdown_report(benchmark, plot=plot.name), encoding="utf-8")
        plot_benchmark(benchmark, staged_plot)
    return report, plot


def print_benchmark(benchmark: Benchmark) -> None:
    """Print the table and what a reader must know about it to stdout."""
    Console().print(benchmark_table(benchmark))


def benchmark_table(benchmark: Benchmark) -> Group:
    """One row a model, for a terminal of 80 columns; latency in the grid's first cell."""
    metric = benchmark.task.metric
    cell = benchmark.models[0].latency[0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, expand=False)
    table.add_column("model", overflow="fold", min_width=8)
    for header in ("size\nbytes", "zipped\nMB", "load\nms", "peak\nMiB", "p50\nms", "p99\nms"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("p50 ratio\n(95 %)", justify="right", no_wrap=True)
    table.add_column(f"{metric}\n(95 %)", justify="right", no_wrap=True)
    for index, model in enumerate(benchmark.models):
        first = model.latency[0]
        table.add_row(
            escape(model.name),
            f"{model.size.directory_bytes:,}",
            f"{model.size.zipped_bytes / _MB:.1f}",
            f"{model.startup.load_ms:.0f}",
            f"{model.startup.peak_memory_bytes / _MIB:.0f}",
            f"{first.p50_ms.value:.1f}",
            f"{first.p99_ms:.1f}",
            _two_lines(first.ratio, 2) if index else "1",
            _two_lines(model.metrics[metric], 3),
        )
    lines = [
        f"Latency: {_cell_name(cell)}, {_threads(benchmark)}; the other cells are in the report. "
        f"Size is that of the whole directory; {metric} is over {benchmark.data.rows} texts."
    ]
    parts: list[Table | Text] = [table, *map(Text, lines + _warnings(benchmark))]
    for model in benchmark.models:
        if model.profile is not None:
            parts.append(operator_table(model.name, model.profile))
            parts += map(Text, plan_lines(model.profile))
    return Group(*parts)


def _two_lines(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f}\n{estimate.low:.{digits}f}-{estimate.high:.{digits}f}"


def _cell_name(cell: LatencyCell) -> str:
    texts = "text" if cell.batch_size == 1 else "texts"
    return f"{cell.batch_size} {texts} of {cell.sequence_length} tokens"


def _threads(benchmark: Benchmark) -> str:
    return "1 thread" if benchmark.threads == 1 else f"{benchmark.threads} threads"


def _warnings(benchmark: Benchmark) -> list[str]:
    """What a reader must know before trusting the figures."""
    warnings = []
    if benchmark.noisy_cells:
        load = benchmark.machine.load_average
        busy = "" if load is None else f" (load average {load:g} at the start)"
        warnings.append(
            f"Noisy machine{busy}: the first model's own runs vary by more than 10 % or drift by "
            f"more than 5 % in {benchmark.noisy_cells} of {len(benchmark.noise)} cells. Ratios "
            "suffer less than single latencies; run again on an idle machine to rely on either."
        )
    for truncated in sorted({model.truncated for model in benchmark.models} - {0}):
        names = ", ".join(m.name for m in benchmark.models if m.truncated == truncated)
        warnings.append(
            f"{truncated} of {benchmark.data.rows} texts were longer than the maximum length of "
            f"{names} and were cut."
        )
    return warnings


def markdown_report(benchmark: Benchmark, *, plot: str) -> str:
    """The report: every model, every cell of the grid, every metric, and the conditions.

    Args:
        benchmark: the benchmark.
        plot: file name of the plot, beside the report.
    """
    sections = [
        "# Benchmark",
        "\n".join(f"> {plain(line)}\n" for line in _warnings(benchmark)).strip(),
        f"![{benchmark.task.metric} against latency and size]({plot})",
        "## Size, load time and memory",
        _size_section(benchmark),
        "## Quality",
        _quality_section(benchmark),
        "## Latency",
        _latency_section(benchmark),
        operator_section(benchmark),
        "## Conditions",
        _conditions_section(benchmark),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _range(estimate: Estimate, digits: int) -> str:
    value = f"{estimate.value:.{digits}f}"
    return f"{value} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def _size_section(benchmark: Benchmark) -> str:
    headers = [
        *("model", "format", "method", "density", "model.onnx, bytes", "directory, bytes"),
        *("zipped, bytes", "load, ms", "peak memory, MiB", "whole process, MiB"),
    ]
    rows = [
        [
            plain(model.name),
            model.format,
            model.method,
            f"{model.density:.4g}",
            f"{model.size.model_bytes:,}",
            f"{model.size.directory_bytes:,}",
            f"{model.size.zipped_bytes:,}",
            f"{model.startup.load_ms:.1f}",
            f"{model.startup.peak_memory_bytes / _MIB:.1f}",
            f"{model.startup.peak_rss_bytes / _MIB:.1f}",
        ]
        for model in benchmark.models
    ]
    processes = benchmark.models[0].startup.processes
    return (
        f"{markdown_table(headers, rows)}\n\nLoad time and memory are medians over {processes} "
        "fresh processes that open the model and run one batch. Peak memory is what the model "
        "adds to a process that has the libraries loaded."
    )


def _quality_section(benchmark: Benchmark) -> str:
    names = list(benchmark.models[0].metrics)
    rows = [
        [
            plain(model.name),
            *(_range(model.metrics[name], 4) for name in names),
            str(model.truncated),
        ]
        for model in benchmark.models
    ]
    data = benchmark.data
    return (
        f"{markdown_table(['model', *names, 'texts cut'], rows)}\n\n"
        f"{data.rows} examples of {plain(data.source)} (SHA-256 {data.sha256}), with 95 % "
        "bootstrap intervals over the examples. The intervals are each model's own: that two of "
        "them overlap does not show that the models are equally good."
    )


def _latency_section(benchmark: Benchmark) -> str:
    headers = ["model", "p50, ms", "p90, ms", "p99, ms", "texts/s", "p50 ratio to the first"]
    parts = []
    for index, noise in enumerate(benchmark.noise):
        rows = []
        for position, model in enumerate(benchmark.models):
            cell = model.latency[index]
            rows.append(
                [
                    plain(model.name),
                    _range(cell.p50_ms, 2),
                    f"{cell.p90_ms:.2f}",
                    f"{cell.p99_ms:.2f}",
                    f"{cell.texts_per_second:.1f}",
                    _range(cell.ratio, 3) if position else "1",
                ]
            )
        parts.append(
            f"### {_cell_name(benchmark.models[0].latency[index])}\n\n"
            f"{markdown_table(headers, rows)}\n\n"
            f"Steadiness of the first model: coefficient of variation "
            f"{noise.coefficient_of_variation:.3f}, drift {noise.drift:+.3f}"
            f"{' (**noisy**)' if noise.noisy else ''}."
        )
    runs = len(benchmark.models[0].latency[0].latencies_ms)
    parts.append(
        f"{runs} timed runs a model and cell, the models in turn in random order. "
        f"The 99th percentile of {runs} runs is close to the slowest of them."
        if runs < 100
        else f"{runs} timed runs a model and cell, the models in turn in random order."
    )
    return "\n\n".join(parts)


def _conditions_section(benchmark: Benchmark) -> str:
    machine = benchmark.machine
    physical = machine.physical_cores or "unknown"
    load = "unknown" if machine.load_average is None else f"{machine.load_average:g}"
    facts = {
        "processor": f"{machine.cpu}, {physical} physical and {machine.logical_cores} logical "
        f"cores, {machine.usable_cores} usable by the process",
        "vector extensions": ", ".join(machine.instruction_sets) or "unknown",
        "threads": str(benchmark.threads),
        "memory": f"{machine.memory_bytes / 2**30:.1f} GiB",
        "load average at the start": load,
        "system": f"{machine.os}, Python {machine.python}",
        "versions": ", ".join(f"{name} {version}" for name, version in benchmark.versions.items()),
        "seed": str(benchmark.settings.get("seed", "unknown")),
        "finished": benchmark.created,
    }
    facts |= {f"hash of {model.name}": model.model_sha256 for model in benchmark.models}
    return "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in facts.items())
