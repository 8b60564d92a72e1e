"""The sections on what each model is: size, density by layer, kernels by layer, operators."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pipeline.artifacts.benchmark import ModelResult, OperatorProfile
from pipeline.report.document import Block, Charts, Details, Section, Table, Text
from pipeline.report.grids import density_grid, kernel_grid, place
from pipeline.report.overview import runs_on
from pipeline.report.sources import Source
from pipeline.report.svg import Drawing
from pipeline.report.text import NOT_MEASURED, and_list, number, rounded

__all__ = [
    "density_section",
    "kernel_section",
    "memory_section",
    "operator_rows",
    "operator_section",
    "plan_line",
    "size_section",
    "without_size",
    "without_startup",
]


def size_section(sources: Sequence[Source]) -> Section:
    """Bytes on disk."""
    rows = []
    for source in sources:
        for series, model in source.series():
            export, size = model.export, model.size
            row = [series.name]
            row += (
                ["unknown"] * 3
                if export is None
                else [export.format, export.method, number(export.density, 4)]
            )
            row += (
                [NOT_MEASURED] * 3
                if size is None
                else [
                    f"{count:,}"
                    for count in (size.model_bytes, size.directory_bytes, size.zipped_bytes)
                ]
            )
            rows.append(row)
    headers = ["model", "format", "method", "density"]
    headers += ["model file, bytes", "directory, bytes", "zipped, bytes"]
    reasons = [Text(reason) for reason in without_size(_named(sources))]
    return Section("Size", [Table(headers, rows, numeric_from=3), *reasons])


def memory_section(sources: Sequence[Source]) -> Section:
    """Load time and memory."""
    rows, processes = [], set()
    for source in sources:
        for series, model in source.series():
            startup = model.startup
            if startup is None:
                figures = [NOT_MEASURED] * 3
            else:
                processes.add(startup.processes)
                memory = (startup.peak_memory_bytes, startup.peak_rss_bytes)
                figures = [rounded(startup.load_ms), *(rounded(count / 2**20) for count in memory)]
            rows.append([series.name, runs_on(model), *figures])
    headers = ["model", "runs on", "load, ms", "peak memory, MiB", "whole process, MiB"]
    counts = and_list([str(count) for count in sorted(processes)])
    notes = [
        f"Medians over {counts} fresh processes that open the model and run one batch. Peak "
        "memory is what the model adds to a process that has the libraries loaded."
    ]
    notes = notes if processes else []
    notes += without_startup(_named(sources))
    return Section(
        "Load time and memory", [Table(headers, rows, numeric_from=2), *map(Text, notes)]
    )


def without_size(models: Iterable[tuple[str, ModelResult]]) -> list[str]:
    """Why the size of some models was not measured: a sentence with their names, or none."""
    names = [name for name, model in models if model.size is None]
    return [f"Size of {and_list(names)}: no ONNX file to measure."] if names else []


def without_startup(models: Iterable[tuple[str, ModelResult]]) -> list[str]:
    """Why the load time of some models was not measured: a sentence with their names, or none."""
    names = [name for name, model in models if model.startup is None]
    reason = "measured of ONNX Runtime only"
    return [f"Load time and memory of {and_list(names)}: {reason}."] if names else []


def _named(sources: Sequence[Source]) -> list[tuple[str, ModelResult]]:
    return [(series.name, model) for source in sources for series, model in source.series()]


def density_section(sources: Sequence[Source]) -> Section | None:
    """The density of each matrix; models with the same masks share one chart."""
    named: dict[tuple[tuple[str, float], ...], list[str]] = defaultdict(list)
    for source in sources:
        for series, model in source.series():
            if model.export is not None and model.export.densities:
                named[tuple(model.export.densities.items())].append(series.name)
    if not named:
        return None
    drawings = [
        density_grid("Kept weights by matrix", and_list(names), dict(items))
        for items, names in named.items()
    ]
    tables = [
        Details(
            f"Densities of {and_list(names)} in figures",
            [_layer_table({name: number(density, 3) for name, density in items})],
        )
        for items, names in named.items()
    ]
    return Section("Density by layer", [Charts(drawings), *tables])


def kernel_section(sources: Sequence[Source]) -> Section | None:
    """The native library's kernel for each matrix."""
    drawings: list[Drawing] = []
    blocks: list[Block] = []
    for source in sources:
        for series, model in source.series():
            if model.profile is None or not model.profile.plan:
                continue
            kernels = {entry.matrix: (entry.kernel, entry.density) for entry in model.profile.plan}
            drawings.append(kernel_grid("Kernel and density by matrix", series.name, kernels))
            blocks.append(Text(f"{series.name}: {plan_line(model.profile)}"))
            figures = {name: f"{k} at {number(d, 3)}" for name, (k, d) in kernels.items()}
            blocks.append(Details(f"Kernels of {series.name} in figures", [_layer_table(figures)]))
    return Section("Kernels by layer", [Charts(drawings), *blocks]) if drawings else None


def _layer_table(cells: Mapping[str, str]) -> Table:
    """One row a layer, one column a type of matrix."""
    places = {name: place(name) for name in cells}
    types = list(dict.fromkeys(at.matrix_type for at in places.values()))
    rows: dict[int | None, dict[str, str]] = defaultdict(dict)
    for name, text in cells.items():
        rows[places[name].layer][places[name].matrix_type] = text
    layers = sorted(rows, key=lambda layer: -1 if layer is None else layer)
    return Table(
        ["layer", *types],
        [
            [
                "none" if layer is None else str(layer),
                *(rows[layer].get(name, "") for name in types),
            ]
            for layer in layers
        ],
    )


def plan_line(profile: OperatorProfile) -> str:
    """The kernels of the native library, with the number and mean density of their matrices."""
    densities: dict[str, list[float]] = defaultdict(list)
    for entry in profile.plan:
        densities[entry.kernel].append(entry.density)
    kernels = [
        f"{kernel} for {len(values)} (mean density {sum(values) / len(values):.3g})"
        for kernel, values in sorted(densities.items(), key=lambda item: -len(item[1]))
    ]
    count = "1 matrix" if len(profile.plan) == 1 else f"{len(profile.plan)} matrices"
    return f"Kernels ({profile.isa}) of {count}: {', '.join(kernels)}."


def operator_section(sources: Sequence[Source]) -> Section | None:
    """Where the time of each profiled model goes."""
    blocks: list[Block] = []
    for source in sources:
        for series, model in source.series():
            if model.profile is not None:
                rows = [row for row, _ in operator_rows(model.profile)]
                table = Table(["operator", "calls", "ms a run", "share"], rows)
                first = rows[0][0] if rows else "none"
                how = Text(
                    f"Means over {model.profile.runs} runs at batch size "
                    f"{model.profile.batch_size} and sequence length "
                    f"{model.profile.sequence_length}, in a process of its own under ONNX "
                    "Runtime's profiler, which takes time of its own."
                )
                blocks.append(Details(f"{series.name}: {first} first", [table, how]))
    return Section("Time by operator", blocks) if blocks else None


def operator_rows(profile: OperatorProfile) -> list[tuple[list[str], float]]:
    """Operator, calls, ms and share of all operators as text, and the share as a number.

    The stages within the native library's operators stand below the first of these.
    """
    total_ms = sum(entry.ms for entry in profile.operators) or 1.0

    def row(name: str, calls: str, ms: float) -> tuple[list[str], float]:
        return [name, calls, number(ms, 3), f"{ms / total_ms:.1%}"], ms / total_ms

    rows = []
    stages = list(profile.stages_ms.items())
    for entry in profile.operators:
        rows.append(row(entry.operator, f"{entry.calls:g}", entry.ms))
        if entry.operator.startswith("Smp"):
            rows += [row(f"- {stage}", "", ms) for stage, ms in stages]
            stages = []
    return rows
