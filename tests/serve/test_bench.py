import csv
import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts.benchmark import Benchmark, read_benchmark, write_benchmark
from pipeline.artifacts.files import sha256_file
from pipeline.config import BenchConfig
from pipeline.errors import ConfigurationError, DataError, PipelineError
from pipeline.machine import usable_cores
from serve.bench import run_benchmark
from serve.subjects import open_subjects

MakeModel = Callable[..., Path]


def run(models: list[Path], validation_file: Path | None, **changes: Any) -> Benchmark:
    """The quickest benchmark there is."""
    settings: dict[str, Any] = {
        "batch_sizes": (1,),
        "sequence_lengths": (8,),
        "repetitions": 3,
        "warmup": 1,
        "threads": (1,),
        "startups": 1,
        "bootstrap_samples": 100,
    }
    return run_benchmark(
        BenchConfig(models=tuple(models), validation_file=validation_file, **settings | changes)
    )


def write_rows(path: Path, *rows: tuple[Any, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_right_and_an_inverted_model_are_told_apart(
    benchmark: Benchmark, reviews: tuple[Path, Path]
) -> None:
    right, inverted = benchmark.models
    assert (right.name, inverted.name) == ("right", "inverted")
    assert right.quality is not None
    assert inverted.quality is not None
    assert benchmark.data is not None
    assert right.quality.metrics["accuracy"].value == 1.0
    assert right.quality.metrics["matthews"].value == pytest.approx(1.0)
    assert inverted.quality.metrics["accuracy"].value == 0.0
    assert list(right.quality.metrics) == ["accuracy", "f1", "matthews"]
    assert benchmark.data.sha256 == sha256_file(reviews[1])
    assert benchmark.data.rows == 48
    assert right.quality.predictions.labels == benchmark.data.references
    np.testing.assert_array_equal(
        np.array(inverted.quality.predictions.logits), -np.array(right.quality.predictions.logits)
    )


def test_the_conditions_are_recorded(benchmark: Benchmark) -> None:
    assert set(benchmark.versions) == {"smp-pipeline", "onnxruntime", "numpy", "tokenizers"}
    assert [measured.cell.threads for measured in benchmark.cells] == [1, 1]
    assert benchmark.machine.processor.affinity is None or benchmark.machine.processor.affinity
    assert benchmark.settings["repetitions"] == 5
    assert [len(timing.latencies_ms) for timing in benchmark.models[1].timings] == [5, 5]
    summaries = [timing.summary for timing in benchmark.models[0].timings]
    assert [(s.ratio.low, s.ratio.high) for s in summaries if s] == [(1.0, 1.0), (1.0, 1.0)]
    assert {measured.steadiness.verdict for measured in benchmark.cells} == {"steady"}


def test_what_is_written_reads_back_equal(benchmark: Benchmark, tmp_path: Path) -> None:
    write_benchmark(tmp_path / "bench.json", benchmark)
    assert read_benchmark(tmp_path / "bench.json") == benchmark


@pytest.mark.usefixtures("quiet_machine")
def test_the_same_directory_may_be_given_twice(
    make_model: MakeModel, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    model = make_model(tmp_path / "a" / "model")
    other = make_model(tmp_path / "b" / "model")
    result = run([model, model, other], reviews[1], max_samples=5)
    names = [str(model), f"{model} (2)", str(other)]
    assert [entry.name for entry in result.models] == names
    assert result.models[0].quality.predictions == result.models[1].quality.predictions
    assert result.data.rows == 5


@pytest.mark.usefixtures("quiet_machine")
def test_columns_are_the_models_unless_given(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    other_names = write_rows(
        tmp_path / "other.csv", ("review", "verdict"), ("good", 1), ("bad film", 0)
    )
    with pytest.raises(DataError, match=r"expected column 'text'.*--text-column"):
        run([model], other_names)
    result = run([model], other_names, text_column="review", label_column="verdict")
    assert result.models[0].quality.metrics["accuracy"].value == 1.0
    assert (result.data.text_column, result.data.label_column) == ("review", "verdict")


@pytest.mark.usefixtures("quiet_machine")
def test_a_model_of_single_texts_never_gets_a_usual_partner_column(
    make_model: MakeModel, tmp_path: Path
) -> None:
    rows = [("sentence1", "sentence2", "label"), ("good", "bad", 1), ("bad", "good", 0)]
    data = write_rows(tmp_path / "pairs.csv", *rows)
    single = run([make_model(tmp_path / "single")], data, text_column="sentence1")
    assert single.data.text_pair_column is None
    assert single.models[0].quality.metrics["accuracy"].value == 1.0
    # With the second text, which this graph counts twice, both examples turn over.
    pairs = make_model(tmp_path / "pairs", text_pair_column="sentence2")
    double = run([pairs], data, text_column="sentence1")
    assert double.models[0].quality.metrics["accuracy"].value == 0.0
    assert double.data.example_ids[0] == hashlib.sha256(b"good\0bad").hexdigest()[:16]


@pytest.mark.usefixtures("quiet_machine")
def test_label_names_decide_the_order_of_the_labels(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", labels=("negative", "positive"))
    rows = [("text", "label"), ("good", "positive"), ("bad", "negative")]
    result = run([model], write_rows(tmp_path / "named.csv", *rows))
    assert result.data.references == (1, 0)
    rows = [("text", "label"), ("good", "positive"), ("bad", "neutral")]
    with pytest.raises(DataError, match="'neutral', which the training data never had"):
        run([model], write_rows(tmp_path / "unknown.csv", *rows))


@pytest.mark.usefixtures("quiet_machine")
def test_regression(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", labels=(), metric="spearman")
    rows = [("text", "label"), ("good good", 2.5), ("film", 0.25), ("bad", -1), ("good", 0.5)]
    result = run([model], write_rows(tmp_path / "numbers.csv", *rows))
    assert list(result.models[0].quality.metrics) == ["spearman", "pearson"]
    assert result.models[0].quality.metrics["spearman"].value == pytest.approx(1.0)
    assert result.models[0].quality.predictions.labels == ()
    assert result.models[0].quality.predictions.logits == ((2.0,), (0.0,), (-1.0,), (1.0,))
    write_benchmark(tmp_path / "bench.json", result)
    assert read_benchmark(tmp_path / "bench.json") == result


@pytest.mark.usefixtures("quiet_machine")
def test_cut_texts_are_counted(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", max_length=6)
    rows = [("text", "label"), ("good " * 4, 1), ("bad " * 5, 0), ("bad " * 50, 0)]
    result = run([model], write_rows(tmp_path / "long.csv", *rows))
    assert result.models[0].quality.truncated == 2


@pytest.mark.usefixtures("quiet_machine")
def test_the_time_by_operator_is_there_on_request(
    make_model: MakeModel, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    models = [make_model(tmp_path / "model")]
    assert run(models, reviews[1], max_samples=5).models[0].profile is None
    profile = run(models, reviews[1], max_samples=5, profile=True).models[0].profile
    assert profile is not None
    assert (profile.batch_size, profile.sequence_length) == (1, 8)
    assert "ReduceSum" in [entry.operator for entry in profile.operators]


def test_models_of_other_labels_are_refused_by_name(
    make_model: MakeModel, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    models = [make_model(tmp_path / "one"), make_model(tmp_path / "two", labels=("1", "0"))]
    with pytest.raises(DataError, match=r"/one and .*/two do not predict the same"):
        run(models, reviews[1])


def test_too_long_sequences_are_refused_before_anything_is_measured(
    make_model: MakeModel,
    reviews: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve.subjects.measure_size", lambda layout: pytest.fail("measured"))
    model = make_model(tmp_path / "model", positions=16)
    with pytest.raises(ConfigurationError, match="--sequence-lengths 17 is more than"):
        run([model], reviews[1], sequence_lengths=(8, 17))


@pytest.mark.parametrize("name", ["directory.json", "file/bench.json", "beside.json"])
def test_an_output_that_cannot_be_written_is_refused_at_once(
    make_model: MakeModel, reviews: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "beside.md").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"--output .* director"):
        run([make_model(tmp_path / "model")], reviews[1], output=tmp_path / name)


def test_bench_leaves_its_output_to_the_caller(
    benchmark: Benchmark, reviews: tuple[Path, Path]
) -> None:
    assert not Path(str(benchmark.settings["output"])).exists()


def test_a_missing_model_directory_is_one_line(reviews: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is no model directory"):
        run([tmp_path / "absent"], reviews[1])


SCENARIOS = ("grid", "single-stream", "multi-stream", "offline")


@pytest.mark.usefixtures("quiet_machine")
def test_every_scenario_is_timed_with_every_thread_count(
    make_model: MakeModel, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    models = [make_model(tmp_path / "one"), make_model(tmp_path / "two", max_length=6)]
    result = run(models, reviews[1], scenarios=SCENARIOS, threads=(2, 1), max_samples=20)
    cells = [measured.cell for measured in result.cells]
    assert [cell.name for cell in cells] == [
        "1 text of 8 tokens, 2 threads",
        "single-stream, 1 text, 2 threads",
        "multi-stream, 8 texts, 2 threads",
        "offline, 20 texts, 2 threads",
        "1 text of 8 tokens, 1 thread",
        "single-stream, 1 text, 1 thread",
        "multi-stream, 8 texts, 1 thread",
        "offline, 20 texts, 1 thread",
    ]
    for model in result.models:
        assert [len(timing.latencies_ms) for timing in model.timings] == [3] * 8
    write_benchmark(tmp_path / "bench.json", result)
    assert read_benchmark(tmp_path / "bench.json") == result


@pytest.mark.usefixtures("quiet_machine")
def test_the_first_model_is_opened_twice_and_closed_before_the_next_thread_count(
    make_model: MakeModel,
    reviews: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[int, list[str], int]] = []
    alive: list[weakref.ref[Any]] = []

    def open_and_note(config: BenchConfig, *, threads: int, **others: Any) -> list[Any]:
        before = sum(reference() is not None for reference in alive)
        subjects = open_subjects(config, threads=threads, **others)
        opened.append((threads, [subject.name for subject in subjects], before))
        alive.extend(weakref.ref(subject.session) for subject in subjects)
        return subjects

    monkeypatch.setattr("serve.bench.open_subjects", open_and_note)
    models = [make_model(tmp_path / "one"), make_model(tmp_path / "two")]
    run(models, reviews[1], threads=(1, 2))
    assert opened == [
        (1, ["one", "two"], 0),
        (1, ["one"], 2),
        (2, ["one", "two"], 0),
        (2, ["one"], 2),
    ]


@pytest.mark.usefixtures("quiet_machine")
def test_thread_counts_that_come_to_the_same_are_one_cell(
    make_model: MakeModel, tmp_path: Path
) -> None:
    result = run([make_model(tmp_path / "model")], None, threads=(usable_cores(), 0))
    assert [measured.cell.threads for measured in result.cells] == [usable_cores()]


@pytest.mark.usefixtures("quiet_machine")
def test_without_labelled_texts_size_and_speed_are_measured(
    make_model: MakeModel, tmp_path: Path
) -> None:
    models = [make_model(tmp_path / "one"), make_model(tmp_path / "two", labels=("a", "b"))]
    result = run(models, None)
    assert (result.task, result.data) == (None, None)
    assert [model.quality for model in result.models] == [None, None]
    assert all(model.timings[0].summary is not None for model in result.models)
    write_benchmark(tmp_path / "bench.json", result)
    assert read_benchmark(tmp_path / "bench.json") == result


@pytest.mark.usefixtures("quiet_machine")
def test_lengths_of_a_grid_that_is_not_timed_do_not_matter(
    make_model: MakeModel, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", positions=32)
    lengths = {"sequence_lengths": (8, 999), "scenarios": ("single-stream",)}
    result = run([model], reviews[1], max_samples=5, **lengths)
    assert [measured.cell.scenario for measured in result.cells] == ["single-stream"]


@pytest.mark.usefixtures("quiet_machine")
def test_a_model_of_others_and_its_peer(
    tiny_sequence_model: Path, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(
        [tiny_sequence_model],
        reviews[1],
        labels=("0", "1"),
        peers=("onnxruntime-int8",),
        max_samples=8,
        profile=True,
    )
    first, peer = result.models
    assert (first.engine, peer.engine) == ("onnxruntime", "onnxruntime-int8")
    assert first.export is None and first.startup is not None and first.profile is not None
    assert (peer.startup, peer.profile) == (None, None)
    assert peer.size is not None and first.size is not None
    assert peer.size.model_bytes < first.size.model_bytes
    assert peer.quality is not None and peer.quality.agreement is not None
    assert {"onnx", "onnxruntime"} <= set(result.versions)
    write_benchmark(tmp_path / "bench.json", result)
    assert read_benchmark(tmp_path / "bench.json") == result
