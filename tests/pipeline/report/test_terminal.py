"""The table on a terminal of 80 columns."""

import dataclasses

import pytest
from rich.console import Console

from pipeline.artifacts.benchmark import Benchmark, Cell, MeasuredCell, Steadiness
from pipeline.report import benchmark_table, print_benchmark
from tests.pipeline.report.renamed import renamed


def rendered(benchmark: Benchmark) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(benchmark_table(benchmark))
    lines = capture.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    return lines


def text(benchmark: Benchmark) -> str:
    return " ".join(" ".join(rendered(benchmark)).split())


def test_the_table_has_a_row_a_model_and_says_what_was_measured(benchmark: Benchmark) -> None:
    lines = rendered(benchmark)
    assert sum(line.lstrip().startswith(("right ", "inverted ")) for line in lines) == 2
    assert "1 text of 16 tokens, 1 thread, on onnxruntime, CPU" in text(benchmark)
    assert "accuracy is over 48 texts" in text(benchmark)


def test_long_names_and_large_figures_still_fit_80_columns(benchmark: Benchmark) -> None:
    long = renamed(benchmark, "bert-large-dense-finetuned", "bert-large-smp-s-0.03-packed")
    first = long.models[0]
    assert first.size is not None and first.startup is not None
    size = dataclasses.replace(
        first.size, directory_bytes=1_345_678_901, zipped_bytes=1_234_567_890
    )
    startup = dataclasses.replace(first.startup, load_ms=12345.0, peak_rss_bytes=4 << 30)
    large = dataclasses.replace(first, size=size, startup=startup)
    lines = rendered(dataclasses.replace(long, models=(large, long.models[1])))
    assert "1,346" in "".join(lines)
    assert "12345" in "".join(lines)
    # Folded over lines, not cut.
    assert "…" not in "".join(lines)


def test_what_was_not_measured_has_its_reason_and_no_number(full_benchmark: Benchmark) -> None:
    (row,) = [line for line in rendered(full_benchmark) if "(pytorch)  " in line]
    assert row.split() == ["dense", "(pytorch)", *"----", "15.0", "22.1", "1.00", "0.900"]
    found = text(full_benchmark)
    assert "- (not measured) Size of dense (pytorch): no ONNX file to measure." in found
    assert "Load time and memory of dense (pytorch): measured of ONNX Runtime only." in found
    assert "on onnxruntime, CPU; dense (pytorch) on pytorch, cpu; 2 more in the report" in found


def test_without_labels_and_usable_cells_there_are_sizes_only(bare_benchmark: Benchmark) -> None:
    found = text(bare_benchmark)
    assert "quality is not measured: there were no labelled texts (--validation-file)" in found
    assert "Timing was unusable in 3 of 3 cells (load average" in found
    assert "1 text of 16 tokens, 1 thread: The clock fell. No latency is given there" in found
    assert "accuracy" not in found
    (row,) = [line for line in rendered(bare_benchmark) if line.startswith(" pruned ")]
    assert row.split() == ["pruned", "14.0", "12.0", "90", "30", "-", "-", "-"]


@pytest.mark.parametrize("verdict", ["steady", "noisy"])
def test_noise_is_said_where_there_is_some(benchmark: Benchmark, verdict: str) -> None:
    steadiness = Steadiness(0.2, 0.0, None, True, verdict, ("The runs vary by 20 %.",))
    cell = MeasuredCell(Cell("grid", 1, 1, 16, 1), steadiness)
    found = text(dataclasses.replace(benchmark, cells=(cell, *benchmark.cells[1:])))
    assert ("1 thread: The runs vary by 20 %. Ratios suffer less" in found) == (verdict == "noisy")


def test_cut_texts_and_labels_that_padding_changes_are_said(full_benchmark: Benchmark) -> None:
    first, *others = full_benchmark.models
    assert first.quality is not None
    assert "were cut" not in text(full_benchmark)
    cut = dataclasses.replace(first, quality=dataclasses.replace(first.quality, truncated=7))
    found = text(dataclasses.replace(full_benchmark, models=(cut, *others)))
    assert "7 of 48 texts were longer than the maximum length of dense and were cut" in found
    assert "pruned gave 1 of 32 texts another label in a padded batch than alone" in found


def test_names_are_neither_markup_nor_commands_to_the_terminal(benchmark: Benchmark) -> None:
    lines = rendered(renamed(benchmark, "[red]x", "\x1b[31my"))
    assert any("[red]x" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_kernels_and_operators_are_shown_where_there_are_some(
    benchmark: Benchmark, full_benchmark: Benchmark
) -> None:
    assert "time by operator" not in text(benchmark)
    found = text(full_benchmark)
    assert "pruned: time by operator" in found
    assert "SmpEncoder 1 9.000 90.0% - products 6.000 60.0% - attention 2.500 25.0% Gather" in found
    assert "Cast" not in found  # 0.4 % of the time
    assert "Kernels (avx2) of 6 matrices: int8 for 3 (mean density 0.1), dense_fp32 for 3" in found


def test_the_table_goes_to_stdout(benchmark: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    print_benchmark(benchmark)
    captured = capsys.readouterr()
    assert "inverted" in captured.out
    assert captured.err == ""
