import dataclasses
import struct
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.artifacts.benchmark import (
    Benchmark,
    MatrixPlan,
    OperatorProfile,
    OperatorTime,
    read_benchmark,
)
from pipeline.report import benchmark_table, markdown_report, print_benchmark, write_report


def rendered(benchmark: Benchmark) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(benchmark_table(benchmark))
    return capture.get().splitlines()


def renamed(benchmark: Benchmark, *names: str) -> Benchmark:
    models = zip(benchmark.models, names, strict=True)
    return dataclasses.replace(
        benchmark, models=tuple(dataclasses.replace(model, name=name) for model, name in models)
    )


def with_noise(benchmark: Benchmark, noisy: bool) -> Benchmark:
    cells = (dataclasses.replace(cell, noisy=noisy) for cell in benchmark.noise)
    return dataclasses.replace(benchmark, noise=tuple(cells))


def test_the_table_has_a_row_a_model_and_fits_80_columns(benchmark: Benchmark) -> None:
    lines = rendered(benchmark)
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.lstrip().startswith(("right ", "inverted ")) for line in lines) == 2
    text = " ".join(lines)
    assert "1 text of 16 tokens, 1 thread" in text
    assert "accuracy is over 48 texts" in text


def test_long_names_and_large_figures_still_fit_80_columns(benchmark: Benchmark) -> None:
    long = renamed(benchmark, "bert-large-dense-finetuned", "bert-large-smp-s-0.03-packed")
    first = long.models[0]
    size = dataclasses.replace(
        first.size, directory_bytes=1_345_678_901, zipped_bytes=1_234_567_890
    )
    startup = dataclasses.replace(first.startup, load_ms=12345.0, peak_rss_bytes=4 << 30)
    large = dataclasses.replace(first, size=size, startup=startup)
    lines = rendered(dataclasses.replace(long, models=(large, long.models[1])))
    assert all(len(line) <= 80 for line in lines)
    text = "".join(lines)
    assert "1,345,678,901" in text
    assert "12345" in text
    # Folded over lines, not cut.
    assert "…" not in text


def test_noise_is_said_where_there_is_some(benchmark: Benchmark) -> None:
    assert "Noisy machine" in " ".join(rendered(with_noise(benchmark, True)))
    assert "Noisy machine" not in " ".join(rendered(with_noise(benchmark, False)))
    assert "in 2 of 2 cells" in markdown_report(with_noise(benchmark, True), plot="p.png")


def test_cut_texts_are_said_with_the_models(benchmark: Benchmark) -> None:
    first, second = benchmark.models
    assert "were cut" not in " ".join(rendered(benchmark))
    cut = dataclasses.replace(first, truncated=7)
    text = " ".join(rendered(dataclasses.replace(benchmark, models=(cut, second))))
    assert "7 of 48 texts were longer than the maximum length of right and were cut" in text


def test_brackets_in_names_are_no_markup(benchmark: Benchmark) -> None:
    assert any("[red]x" in line for line in rendered(renamed(benchmark, "[red]x", "y")))


def table_rows(report: str) -> list[list[str]]:
    return [
        line.strip("|").replace("\\|", "").split("|")
        for line in report.splitlines()
        if line.startswith("|")
    ]


def test_the_report_has_every_cell_metric_and_condition(benchmark: Benchmark) -> None:
    report = markdown_report(benchmark, plot="bench.png")
    for expected in (
        "](bench.png)",
        "### 1 text of 16 tokens",
        "### 4 texts of 16 tokens",
        "matthews",
        benchmark.data.sha256,
        benchmark.models[1].model_sha256,
        f"onnxruntime {benchmark.versions['onnxruntime']}",
        f"{benchmark.models[0].size.model_bytes:,}",
    ):
        assert expected in report


def test_pipes_in_names_do_not_break_the_tables(benchmark: Benchmark) -> None:
    report = markdown_report(renamed(benchmark, "a|b", "c*d"), plot="bench.png")
    plain = markdown_report(benchmark, plot="bench.png")
    widths = [len(row) for row in table_rows(report)]
    assert widths == [len(row) for row in table_rows(plain)]
    assert "c\\*d" in report


def test_all_three_files_are_written(benchmark: Benchmark, tmp_path: Path) -> None:
    output = tmp_path / "new" / "bench.json"
    report, plot = write_report(benchmark, output)
    assert read_benchmark(output) == benchmark
    assert report.read_text(encoding="utf-8") == markdown_report(benchmark, plot="bench.png")
    header = plot.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    assert width > height > 400
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "bench.json",
        "bench.md",
        "bench.png",
    ]


def test_an_interruption_leaves_the_former_files(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(benchmark: Benchmark, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.plots.plot_benchmark", interrupt)
    (tmp_path / "bench.json").write_text("former")
    with pytest.raises(KeyboardInterrupt):
        write_report(benchmark, tmp_path / "bench.json")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert (tmp_path / "bench.json").read_text() == "former"


def test_the_table_goes_to_stdout(benchmark: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    print_benchmark(benchmark)
    captured = capsys.readouterr()
    assert "inverted" in captured.out
    assert captured.err == ""


def with_profile(benchmark: Benchmark) -> Benchmark:
    """The second model with a made-up profile of the native library's operators."""
    profile = OperatorProfile(
        batch_size=1,
        sequence_length=16,
        runs=10,
        operators=(
            OperatorTime("SmpEncoder", 1.0, 9.0),
            OperatorTime("Gather", 3.0, 0.96),
            OperatorTime("Cast", 2.0, 0.04),
        ),
        isa="avx2",
        plan=(
            MatrixPlan("layer.0.query", "int8", 0.1),
            MatrixPlan("layer.0.key", "int8", 0.3),
            MatrixPlan("layer.0.value", "dense_fp32", 0.9),
        ),
        stages_ms={"products": 6.0, "attention": 2.5},
    )
    first, second = benchmark.models
    profiled = dataclasses.replace(second, format="engine", profile=profile)
    return dataclasses.replace(benchmark, models=(first, profiled))


def test_kernels_and_operators_are_shown_where_there_are_some(benchmark: Benchmark) -> None:
    assert "operator" not in " ".join(rendered(benchmark))
    assert "Time by operator" not in markdown_report(benchmark, plot="p.png")
    lines = rendered(with_profile(benchmark))
    assert all(len(line) <= 80 for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "inverted: time by operator" in text
    assert "SmpEncoder 1 9.000 90.0% - products 6.000 60.0% - attention 2.500 25.0% Gather" in text
    assert "Cast" not in text  # 0.4 % of the time
    assert "Kernels (avx2) of 3 matrices: int8 for 2 (mean density 0.2), dense_fp32 for 1" in text
    report = markdown_report(with_profile(benchmark), plot="p.png")
    assert "### inverted\n\nKernels (avx2) of 3 matrices: int8 for 2" in report
    assert "| Cast | 2 | 0.040 | 0.4% |" in report


def test_the_whole_plan_is_in_the_file(benchmark: Benchmark, tmp_path: Path) -> None:
    profiled = with_profile(benchmark)
    write_report(profiled, tmp_path / "bench.json")
    assert read_benchmark(tmp_path / "bench.json") == profiled
