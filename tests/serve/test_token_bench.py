"""Benchmarks of models whose logits are of tokens."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.benchmark import Benchmark, Quality, read_benchmark, write_benchmark
from pipeline.artifacts.run import TaskKind
from pipeline.config import BenchConfig
from pipeline.errors import ArtifactError, DataError
from pipeline.report.write import write_benchmark_files
from serve.bench import run_benchmark
from serve.session import open_session

MakeModel = Callable[..., Path]
Benchmarks = dict[TaskKind, Benchmark]


def qualities(benchmark: Benchmark) -> tuple[Quality, Quality]:
    right, inverted = (model.quality for model in benchmark.models)
    assert right is not None
    assert inverted is not None
    return right, inverted


def test_answers_are_scored_as_squads_are(token_benchmarks: Benchmarks) -> None:
    benchmark = token_benchmarks["question-answering"]
    right, inverted = qualities(benchmark)
    assert benchmark.data is not None
    assert list(right.metrics) == ["squad_f1", "exact_match"]
    assert [estimate.value for estimate in right.metrics.values()] == [1.0, 1.0]
    assert right.predictions.answers == tuple(
        texts[0] if texts else "" for texts in benchmark.data.references
    )
    assert inverted.metrics["squad_f1"].value < 0.5
    assert inverted.metrics["squad_f1"].value >= inverted.metrics["exact_match"].value
    by_class = {part.name: part for part in right.slices if part.by == "class"}
    assert set(by_class) == {"an answer", "no answer"}
    assert sum(part.examples for part in by_class.values()) == benchmark.data.rows
    assert {part.metric for part in right.slices} == {"squad_f1"}


def test_entities_are_scored_over_all_sentences(token_benchmarks: Benchmarks) -> None:
    benchmark = token_benchmarks["token-classification"]
    right, inverted = qualities(benchmark)
    assert benchmark.data is not None
    assert list(right.metrics) == ["entity_f1", "entity_precision", "entity_recall", "accuracy"]
    assert {estimate.value for estimate in right.metrics.values()} == {1.0}
    assert right.predictions.tags == benchmark.data.references
    # It takes what is no entity for one, and never says what kind a good or bad word is.
    assert inverted.metrics["entity_f1"].value == 0.0
    assert {part.name for part in right.slices if part.by == "class"} == {"NEG", "POS"}
    assert all(part.estimate.value == 1.0 for part in right.slices)


@pytest.mark.parametrize("kind", ["question-answering", "token-classification"])
def test_models_are_compared_example_by_example(
    kind: TaskKind, token_benchmarks: Benchmarks
) -> None:
    right, inverted = qualities(token_benchmarks[kind])
    assert right.agreement is None
    assert inverted.agreement is not None
    assert inverted.agreement.largest_logit_difference is None
    assert inverted.agreement.same_label is not None
    rows = right.predictions.answers or right.predictions.tags
    others = inverted.predictions.answers or inverted.predictions.tags
    different = tuple(row for row, said in enumerate(rows) if said != others[row])
    assert inverted.agreement.examples == different
    assert inverted.agreement.same_label.value == 1 - len(different) / len(rows)
    # Padding changes nothing for graphs that look at each token alone.
    assert (right.robustness.texts, right.robustness.changed_labels) == (48, 0)
    assert right.robustness.largest_logit_difference == 0.0


@pytest.mark.parametrize("kind", ["question-answering", "token-classification"])
def test_the_file_reads_back_and_the_report_names_the_metric(
    kind: TaskKind, token_benchmarks: Benchmarks, tmp_path: Path
) -> None:
    benchmark = token_benchmarks[kind]
    assert [cell.cell.scenario for cell in benchmark.cells] == ["grid", "multi-stream"]
    path = tmp_path / "bench.json"
    write_benchmark_files(benchmark, path)
    assert read_benchmark(path) == benchmark
    report = path.with_suffix(".md").read_text(encoding="utf-8")
    assert benchmark.task is not None
    assert benchmark.task.metric.replace("_", "\\_") in report
    assert "logits of tokens" in report


@pytest.mark.parametrize("kind", ["question-answering", "token-classification"])
def test_predictions_that_do_not_fit_are_corrupt(
    kind: TaskKind, token_benchmarks: Benchmarks, tmp_path: Path
) -> None:
    benchmark = token_benchmarks[kind]
    right, _ = qualities(benchmark)
    assert benchmark.data is not None
    said = right.predictions
    more = dataclasses.replace(
        said,
        answers=(*said.answers, ""),
        tags=tuple((*tags, 0) for tags in said.tags),
    )
    quality = dataclasses.replace(right, predictions=more)
    models = (dataclasses.replace(benchmark.models[0], quality=quality), benchmark.models[1])
    write_benchmark(tmp_path / "one.json", dataclasses.replace(benchmark, models=models))
    with pytest.raises(
        ArtifactError, match=r"corrupt: model right: its (answers|labels of words) do"
    ):
        read_benchmark(tmp_path / "one.json")
    data = dataclasses.replace(benchmark.data, references=(1,) * benchmark.data.rows)
    write_benchmark(tmp_path / "two.json", dataclasses.replace(benchmark, data=data))
    with pytest.raises(ArtifactError, match=f"references are not those of {kind}"):
        read_benchmark(tmp_path / "two.json")
    if kind == "token-classification":  # a sentence without words has no accuracy
        data = dataclasses.replace(data, references=((),) * data.rows)
        write_benchmark(tmp_path / "three.json", dataclasses.replace(benchmark, data=data))
        with pytest.raises(ArtifactError, match=f"references are not those of {kind}"):
            read_benchmark(tmp_path / "three.json")


def test_models_of_two_kinds_are_not_benched_together(
    make_model: MakeModel, token_data: dict[TaskKind, Path], tmp_path: Path
) -> None:
    models = tuple(make_model(tmp_path / kind, kind=kind) for kind in token_data)
    config = BenchConfig(models=models, validation_file=token_data["question-answering"])
    with pytest.raises(DataError, match="question-answering against token-classification of O, B-"):
        run_benchmark(config)


@pytest.mark.usefixtures("quiet_machine")
def test_a_peer_answers_questions_too(
    make_model: MakeModel, token_data: dict[TaskKind, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    kind: TaskKind = "question-answering"
    model = make_model(tmp_path / "model", kind=kind)
    asked = []

    def load(name: str, *, kind: TaskKind, threads: int, compiled: bool) -> Any:
        """Stands for PyTorch; its start and end logits are the model's own."""
        asked.append((name, kind, threads, compiled))
        return open_session(model, threads=threads).run

    monkeypatch.setattr("serve.bench.measure_startups", lambda opened, **_: [None] * len(opened))
    config = BenchConfig(
        models=(model,),
        validation_file=token_data[kind],
        peers=("pytorch",),
        pytorch_model="run",
        output=tmp_path / "bench.json",
        batch_sizes=(1,),
        sequence_lengths=(8,),
        repetitions=3,
        threads=(1,),
        bootstrap_samples=100,
    )
    first, peer = run_benchmark(config, load_pytorch=load).models
    assert asked == [("run", kind, 1, False)]
    assert first.quality is not None
    assert peer.quality is not None
    assert peer.quality.predictions == first.quality.predictions
