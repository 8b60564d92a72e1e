"""Which files are written, when, and what is in them."""

import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifacts.benchmark import Benchmark, read_benchmark
from pipeline.config import ReportConfig
from pipeline.errors import ArtifactError
from pipeline.report import write_benchmark_files, write_report
from tests.pipeline.report.renamed import renamed

Save = Callable[..., Path]


def table_rows(markdown: str) -> list[list[str]]:
    return [
        line.strip("|").replace("\\|", "").split("|")
        for line in markdown.splitlines()
        if line.startswith("|")
    ]


def test_a_benchmark_is_written_with_its_report_and_chart(
    full_benchmark: Benchmark, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "bench.json"
    written = write_benchmark_files(full_benchmark, output)
    assert sorted(written) == sorted(output.parent.iterdir())
    assert [path.name for path in written] == ["bench.json", "bench.md", "bench.svg"]
    assert read_benchmark(output) == full_benchmark
    assert "](bench.svg)" in written[1].read_text(encoding="utf-8")
    root = ElementTree.parse(written[2]).getroot()
    points = [node for node in root.iter() if node.get("class", "").endswith(" point")]
    assert len(points) == 3 + 2


def test_the_markdown_has_every_cell_metric_matrix_and_condition(
    full_benchmark: Benchmark, tmp_path: Path
) -> None:
    report = write_benchmark_files(full_benchmark, tmp_path / "bench.json")[1].read_text("utf-8")
    data, models = full_benchmark.data, full_benchmark.models
    assert data is not None and models[1].size is not None
    for expected in (
        "### 1 text of 16 tokens, 1 thread",
        "### single-stream, 1 text, 1 thread",
        "### offline, 256 texts in batches of 32, 1 thread",
        "> **Note:** Unusable. The clock fell. The first model's runs:",
        "| pruned | 3.00 (2.90 to 3.10) |",
        "| pruned | 0.9000 (0.8500 to 0.9500) | 0.25 | 1 of 32 | 1e-06 |",
        "| class | 0 | pruned | 20 | accuracy | 0.8800 (0.7800 to 0.9800) |",
        "| pruned | engine | smp-s | 0.1750 | 13,000,000 | 14,000,000 | 12,000,000 |",
        "| 2 | 0.250 | 0.300 |",
        "| 2 | dense\\_fp32 at 0.250 | dense\\_fp32 at 0.300 |",
        "| SmpEncoder | 1 | 9.000 | 90.0% |",
        "| Cast | 2 | 0.040 | 0.4% |",
        "matthews",
        data.sha256,
        str(models[1].model_sha256),
        f"onnxruntime {full_benchmark.versions['onnxruntime']}",
    ):
        assert expected in report
    # Nothing is derived from a cell that could not be measured.
    unusable = report.partition("### offline, 256 texts")[2].partition("</details>")[0]
    assert "|" not in unusable


def test_pipes_in_names_do_not_break_the_tables(full_benchmark: Benchmark, tmp_path: Path) -> None:
    def rows(benchmark: Benchmark) -> list[list[str]]:
        written = write_benchmark_files(benchmark, tmp_path / "bench.json")
        return table_rows(written[1].read_text(encoding="utf-8"))

    broken = renamed(full_benchmark, "a|b", "c*d", "e\nf")
    assert list(map(len, rows(broken))) == list(map(len, rows(full_benchmark)))


def test_without_anything_to_draw_there_is_no_chart(
    full_benchmark: Benchmark, bare_benchmark: Benchmark, tmp_path: Path
) -> None:
    write_benchmark_files(full_benchmark, tmp_path / "bench.json")
    written = write_benchmark_files(bare_benchmark, tmp_path / "bench.json")
    # The chart of the earlier benchmark would belong to another report.
    assert (
        sorted(tmp_path.iterdir())
        == sorted(written)
        == [
            tmp_path / "bench.json",
            tmp_path / "bench.md",
        ]
    )
    report = written[1].read_text(encoding="utf-8")
    assert "Not measured: no labelled texts were given (--validation-file)." in report
    assert "svg" not in report


def test_an_interruption_leaves_the_former_files(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, benchmark: Benchmark) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.report.write.write_benchmark", interrupt)
    (tmp_path / "bench.json").write_text("former")
    with pytest.raises(KeyboardInterrupt):
        write_benchmark_files(benchmark, tmp_path / "bench.json")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert (tmp_path / "bench.json").read_text() == "former"


def test_several_files_make_one_report_and_keep_their_latencies_apart(
    full_benchmark: Benchmark, saved: Save, tmp_path: Path
) -> None:
    machine = dataclasses.replace(full_benchmark.machine, cpu="Another CPU")
    other = dataclasses.replace(full_benchmark, machine=machine)
    files = (saved(full_benchmark, "one.json"), saved(other, "two.json"))
    page, text = write_report(ReportConfig(files, tmp_path / "report.html"))
    report = text.read_text(encoding="utf-8")
    assert "none is compared with another file's" in report
    assert "| two.json | Another CPU | 48 of " in report
    for heading in (
        "### Latency (one.json)",
        "### Latency (two.json)",
        "### Environment (two.json)",
    ):
        assert heading in report
    html = page.read_text(encoding="utf-8")
    # One chart of size for both, one of latency for each.
    assert html.count(">Accuracy against size</text>") == 1
    for name in ("one.json", "two.json"):
        assert html.count(f"Accuracy against latency, 1 text of 16 tokens, 1 thread ({name})") == 1


def test_a_file_that_is_no_benchmark_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"kind": "smp-run", "schema_version": 1}')
    with pytest.raises(
        ArtifactError, match=r"other\.json: expected a file of kind 'smp-benchmark'"
    ):
        write_report(ReportConfig((tmp_path / "other.json",), tmp_path / "report.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
