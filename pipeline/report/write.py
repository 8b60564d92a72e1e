"""Puts a report together and writes its files."""

from pathlib import Path

from pipeline.artifacts.benchmark import Benchmark, read_benchmark, write_benchmark
from pipeline.artifacts.files import staged_file
from pipeline.config import ReportConfig
from pipeline.report.document import Section
from pipeline.report.environment import environment_section
from pipeline.report.html import to_html
from pipeline.report.latency import latency_section
from pipeline.report.markdown import to_markdown
from pipeline.report.models import (
    density_section,
    kernel_section,
    memory_section,
    operator_section,
    size_section,
)
from pipeline.report.overview import latency_scatter, overview, size_scatter
from pipeline.report.quality import quality_section
from pipeline.report.sources import Source, gather, same_data
from pipeline.report.svg import standalone_svg

__all__ = ["write_benchmark_files", "write_report"]


def write_report(config: ReportConfig) -> list[Path]:
    """Write one HTML file on several benchmarks, and a Markdown file of the same name.

    Existing files are replaced, and only when both are complete.

    Returns:
        The files.

    Raises:
        ArtifactError: a benchmark is missing, corrupt or of another schema.
        MachineError: the disk is full or not writable.
    """
    document = _document(gather([(path, read_benchmark(path)) for path in config.bench]))
    page, text = config.output, config.output.with_suffix(".md")
    with staged_file(page) as staged_page, staged_file(text) as staged_text:
        staged_page.write_text(to_html(document), encoding="utf-8")
        staged_text.write_text(to_markdown(document), encoding="utf-8")
    return [page, text]


def write_benchmark_files(benchmark: Benchmark, output: Path) -> list[Path]:
    """Write a benchmark's JSON file, and a report (.md) and chart (.svg) of the same name.

    Existing files are replaced, and only when all are complete.

    Args:
        benchmark: the benchmark.
        output: the JSON file.

    Returns:
        The files. There is no chart where nothing could be drawn: no cell was usable, say.

    Raises:
        MachineError: the disk is full or not writable.
    """
    sources = gather([(output, benchmark)])
    chart = _chart(sources[0])
    picture, text = output.with_suffix(".svg"), output.with_suffix(".md")
    markdown = to_markdown(_document(sources), image=None if chart is None else picture.name)
    with staged_file(text) as staged_text, staged_file(output) as staged_output:
        write_benchmark(staged_output, benchmark)
        staged_text.write_text(markdown, encoding="utf-8")
        if chart is None:
            picture.unlink(missing_ok=True)  # an earlier benchmark's
            return [output, text]
        with staged_file(picture) as staged_picture:
            staged_picture.write_text(chart, encoding="utf-8")
    return [output, text, picture]


def _document(sources: list[Source]) -> Section:
    sections = [
        quality_section(sources),
        latency_section(sources),
        size_section(sources),
        memory_section(sources),
        density_section(sources),
        kernel_section(sources),
        operator_section(sources),
        environment_section(sources),
    ]
    found = [section for section in sections if section is not None]
    return Section("Benchmark", [*overview(sources), *found])


def _chart(source: Source) -> str | None:
    """The overview's charts as one SVG file."""
    drawings = [latency_scatter(source), *map(size_scatter, same_data([source]))]
    drawn = [drawing for drawing in drawings if drawing is not None]
    return standalone_svg(drawn) if drawn else None
