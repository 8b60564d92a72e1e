"""What did not measure the same is refused, with the first difference."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.benchmark import Benchmark
from pipeline.errors import DataError
from pipeline.gate.comparable import check_comparable
from tests.pipeline.gate.edits import edited

Change = Callable[[Benchmark], Benchmark]


def refusal(bench: Benchmark, baseline: Benchmark) -> str:
    with pytest.raises(DataError) as error:
        check_comparable(
            bench, baseline, bench_path=Path("bench.json"), baseline_path=Path("baseline.json")
        )
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("bench.json ")
    assert "--update" in str(error.value)
    return str(error.value)


def data(**changes: Any) -> Change:
    return lambda b: dataclasses.replace(b, data=dataclasses.replace(b.data, **changes))


def task(**changes: Any) -> Change:
    return lambda b: dataclasses.replace(b, task=dataclasses.replace(b.task, **changes))


def second(**changes: Any) -> Change:
    return lambda b: edited(b, 1, lambda model: dataclasses.replace(model, **changes))


def one_cell(benchmark: Benchmark) -> Benchmark:
    models = tuple(dataclasses.replace(m, timings=m.timings[:1]) for m in benchmark.models)
    return dataclasses.replace(benchmark, cells=benchmark.cells[:1], models=models)


def more_threads(benchmark: Benchmark) -> Benchmark:
    cells = [
        dataclasses.replace(entry, cell=dataclasses.replace(entry.cell, threads=7))
        for entry in benchmark.cells
    ]
    return dataclasses.replace(benchmark, cells=tuple(cells))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (data(sha256="0" * 64), "the SHA-256 of the data must be "),
        (data(example_ids=("0" * 16,) * 48), "the examples must be "),
        (data(references=(0,) * 48), "the labels of the examples must be "),
        (task(labels=("no", "yes")), "the labels must be 0, 1 as in the baseline, got no, yes"),
        (task(kind="regression"), "the task must be classification as in the baseline, got regr"),
        (task(metric="f1"), "the metric must be accuracy as in the baseline, got f1"),
        (
            lambda b: dataclasses.replace(b, task=None, data=None),
            "the labelled texts must be some as in the baseline, got none",
        ),
        (
            lambda b: dataclasses.replace(b, models=b.models[::-1]),
            "the first model must be right as in the baseline, got inverted",
        ),
        (
            lambda b: dataclasses.replace(b, models=b.models[:1]),
            "lacks the model 'inverted' of baseline.json, it has right; measure it too",
        ),
        (one_cell, "tokens, 1 thread as in the baseline, got 1 text of 16 tokens, 1 thread;"),
        (more_threads, "got 1 text of 16 tokens, 7 threads, 4 texts of 16 tokens, 7 threads;"),
        (second(tokenizer_sha256="0" * 64), "the tokenizer's SHA-256 of inverted must be "),
        (second(provider="CUDAExecutionProvider"), "the provider of inverted must be CPUExec"),
        (second(engine="openvino"), "the engine of inverted must be onnxruntime as in"),
    ],
)
def test_what_did_not_measure_the_same_is_refused(
    measured: Benchmark, change: Change, message: str
) -> None:
    assert message in refusal(change(measured), measured)


def test_a_model_or_a_peer_more_and_a_peer_less_are_no_difference(measured: Benchmark) -> None:
    peer = dataclasses.replace(measured.models[1], name="right (pytorch)", engine="pytorch")
    with_peer = dataclasses.replace(measured, models=(*measured.models, peer))
    single = dataclasses.replace(measured, models=measured.models[:1])
    for bench, baseline in ((measured, with_peer), (with_peer, measured), (measured, single)):
        check_comparable(bench, baseline, bench_path=Path("a"), baseline_path=Path("b"))


def test_names_of_a_file_cannot_break_the_line(measured: Benchmark) -> None:
    hostile = second(name="x\n::error::y")(measured)
    for change in (second(provider="\n::z"), lambda b: dataclasses.replace(b, models=b.models[:1])):
        assert "\n" not in refusal(change(hostile), hostile)
    assert "\n" not in refusal(hostile, measured)


def test_a_long_difference_is_cut(measured: Benchmark) -> None:
    message = refusal(data(example_ids=("0" * 16,) * 48)(measured), measured)
    assert len(message) < 400
    assert "..." in message
