"""Verdicts on benchmarks whose differences are known."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.artifacts.benchmark import Benchmark
from pipeline.gate.judge import holm
from tests.pipeline.gate.edits import (
    edited,
    failures,
    judged,
    predicting,
    ratio,
    size,
    unusable,
    wrong,
)

CELLS = [
    "latency ratio, 1 text of 16 tokens, 1 thread",
    "latency ratio, 4 texts of 16 tokens, 1 thread",
]
quick = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_a_benchmark_passes_against_itself(measured: Benchmark) -> None:
    result = judged(measured, measured)
    assert result.verdict == "passed"
    # Both models: metric and size; the second: two cells of latency.
    assert len(result.of_verdict("passed")) == len(result.judgements) == 2 * 2 + 2
    assert result.summary == "passed"


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_it_passes_against_itself_whatever_the_metric(measured: Benchmark, metric: str) -> None:
    assert measured.task is not None
    other = dataclasses.replace(measured, task=dataclasses.replace(measured.task, metric=metric))
    assert judged(other, other, confidence=0.5, max_accuracy_drop=0).passed


@pytest.mark.parametrize(
    ("broken", "limits", "passes"),
    [
        (0, {}, True),
        (4, {}, True),  # 8.3 points, but 4 tosses of a coin
        (8, {}, False),
        (8, {"max_accuracy_drop": 17}, True),  # 16.7 points
        (8, {"confidence": 0.99}, True),
        (4, {"confidence": 0.7}, False),
    ],
)
def test_a_drop_fails_where_it_is_beyond_the_limit_and_no_chance(
    measured: Benchmark, broken: int, limits: dict[str, float], passes: bool
) -> None:
    worse = edited(measured, 1, wrong(measured, range(4, 8 + broken)))
    result = judged(worse, measured, **limits)
    assert failures(result) == ([] if passes else [("inverted", "accuracy")])
    assert result.passed is passes


def test_half_a_point_is_not_more_than_half_a_point(measured: Benchmark) -> None:
    # 1 of 48 examples, which binary fractions overshoot.
    limit = round(100 / 48, 10)
    worse = edited(measured, 0, wrong(measured, range(5)))
    assert judged(worse, measured, max_accuracy_drop=limit, confidence=0.5).passed


def test_the_first_models_accuracy_is_judged_too(measured: Benchmark) -> None:
    result = judged(edited(measured, 0, wrong(measured, range(24))), measured)
    assert failures(result) == [("right", "accuracy")]
    assert "right: accuracy went from 0.9167 to 0.5 (41.7 points lost, 0.5 allowed, p = " in (
        result.of_verdict("failed")[0].sentence
    )


def test_answers_that_change_sides_are_no_drop(measured: Benchmark) -> None:
    assert judged(edited(measured, 0, wrong(measured, range(40, 44))), measured).passed


def test_the_bootstrap_judges_other_metrics(measured: Benchmark) -> None:
    assert measured.task is not None
    task = dataclasses.replace(measured.task, metric="matthews")
    before = dataclasses.replace(measured, task=task)
    assert failures(judged(edited(before, 1, wrong(before, range(4, 24))), before)) == [
        ("inverted", "matthews")
    ]
    assert judged(edited(before, 1, wrong(before, range(4, 9))), before).passed


def test_regression_is_judged_by_its_number(measured: Benchmark) -> None:
    assert measured.data is not None and measured.task is not None
    numbers = np.random.default_rng(0).normal(size=measured.data.rows)
    data = dataclasses.replace(measured.data, references=tuple(numbers.tolist()))
    task = dataclasses.replace(measured.task, kind="regression", labels=(), metric="pearson")
    base = dataclasses.replace(measured, task=task, data=data)

    def answering(values: np.ndarray) -> Benchmark:
        model = base.models[0]
        assert model.quality is not None
        logits = tuple((float(value),) for value in values)
        quality = dataclasses.replace(
            model.quality,
            predictions=dataclasses.replace(model.quality.predictions, labels=(), logits=logits),
            metrics={"pearson": dataclasses.replace(model.quality.metrics["accuracy"])},
        )
        return dataclasses.replace(base, models=(dataclasses.replace(model, quality=quality),))

    good, bad = answering(numbers), answering(-numbers)
    assert judged(bad, good).verdict == "failed"
    assert judged(good, bad).passed


def test_latency_fails_where_the_growth_is_beyond_the_limit_and_no_chance(
    measured: Benchmark,
) -> None:
    slower = edited(measured, 1, ratio(0.6))
    assert failures(judged(slower, measured)) == [("inverted", cell) for cell in CELLS]
    assert judged(slower, measured, max_latency_ratio=1.21).passed
    assert judged(edited(measured, 1, ratio(0.54)), measured).passed
    assert judged(edited(measured, 1, ratio(0.6, error=0.5)), measured).passed
    one = edited(measured, 1, ratio(0.6, cells=[1]))
    assert failures(judged(one, measured)) == [("inverted", CELLS[1])]


def test_milliseconds_are_not_compared(measured: Benchmark) -> None:
    models = tuple(
        dataclasses.replace(
            model,
            timings=tuple(
                dataclasses.replace(
                    timing, latencies_ms=tuple(50 * value for value in timing.latencies_ms)
                )
                for timing in model.timings
            ),
        )
        for model in measured.models
    )
    assert judged(dataclasses.replace(measured, models=models), measured).passed


def test_size_has_no_chance(measured: Benchmark) -> None:
    before = edited(measured, 1, size(1000))
    assert judged(edited(measured, 1, size(1020)), before).passed
    result = judged(edited(measured, 1, size(1021)), before)
    assert failures(result) == [("inverted", "size in MB")]
    assert result.of_verdict("failed")[0].p_value is None
    assert "(1.021 times the baseline's, 1.02 allowed)" in result.of_verdict("failed")[0].sentence


def test_what_could_not_be_measured_is_no_pass(measured: Benchmark) -> None:
    for bench, baseline in ((unusable(measured, 1), measured), (measured, unusable(measured, 1))):
        result = judged(bench, baseline)
        assert result.verdict == "unmeasured"
        assert result.summary == "could not be judged: 1 of 6 comparisons"
        assert [j.quantity for j in result.of_verdict("unmeasured")] == [CELLS[1]]
        allowed = judged(bench, baseline, allow_unmeasured=True)
        assert allowed.verdict == "passed"
        where = "benchmark" if bench is not measured else "baseline"
        reason = allowed.of_verdict("not judged")[0].reason
        assert reason == f"unusable timing in the {where} (another program ran)"
    # A regression is one, whatever else could not be judged.
    worse = edited(unusable(measured, 1), 1, size(10**9))
    assert judged(worse, measured).verdict == "failed"


def test_a_single_model_has_no_latency_to_judge_and_this_is_said(measured: Benchmark) -> None:
    single = dataclasses.replace(measured, models=measured.models[:1])
    result = judged(single, single)
    assert result.passed
    assert [j.kind for j in result.judgements] == ["quality", "size"]
    assert any("Latency was not judged" in note for note in result.notes)


def test_a_model_that_the_baseline_lacks_is_not_judged(measured: Benchmark) -> None:
    result = judged(measured, dataclasses.replace(measured, models=measured.models[:1]))
    assert result.passed
    new = [j for j in result.judgements if j.model == "inverted"]
    assert {(j.verdict, j.reason) for j in new} == {("not judged", "not in the baseline")}


def test_peers_are_named_and_not_judged(measured: Benchmark) -> None:
    peer = dataclasses.replace(
        measured.models[1], name="right (pytorch)", engine="pytorch", size=None, startup=None
    )
    with_peer = dataclasses.replace(measured, models=(*measured.models, peer))
    slower = edited(with_peer, 2, ratio(5.0), wrong(measured, range(48)))
    result = judged(slower, with_peer)
    assert result.passed
    assert "Other engines are not judged: right (pytorch)." in result.notes
    assert {j.model for j in result.judgements} == {"right", "inverted"}


def test_without_labelled_texts_size_and_latency_are_judged(measured: Benchmark) -> None:
    models = tuple(dataclasses.replace(model, quality=None) for model in measured.models)
    bare = dataclasses.replace(measured, task=None, data=None, models=models)
    assert failures(judged(edited(bare, 1, ratio(0.7)), bare)) == [
        ("inverted", cell) for cell in CELLS
    ]
    assert {j.kind for j in judged(bare, bare).judgements} == {"size", "latency"}


def test_what_chance_could_hide_is_said(measured: Benchmark) -> None:
    unsteady = edited(measured, 1, ratio(0.5, error=0.3))
    notes = judged(unsteady, unsteady).notes
    # z of 1 - 0.05 / 4 is 2.24; the error is log(1.3) / 1.96 of either file.
    assert "A latency ratio's growth to less than 1.82 could be chance in these timings." in notes
    assert "A drop of less than 15 points could be chance on these examples." in notes
    assert not any("latency" in note for note in judged(measured, measured).notes)


def test_other_conditions_are_noted(measured: Benchmark) -> None:
    machine = dataclasses.replace(measured.machine, cpu="Another CPU")
    versions = {**measured.versions, "onnxruntime": "1.0"}
    other = edited(
        dataclasses.replace(measured, machine=machine, versions=versions),
        0,
        lambda model: dataclasses.replace(model, model_sha256="0" * 64),
    )
    notes = " ".join(judged(unusable(other, 0), measured).notes)
    assert "The processor is Another CPU" in notes
    assert "The version of onnxruntime is 1.0" in notes
    assert "The first model's file is another one" in notes
    assert "The timing of the benchmark was unsteady in 1 of 2 cells." in notes


@quick
@given(data=st.data())
def test_any_benchmark_passes_against_itself(measured: Benchmark, data: st.DataObject) -> None:
    bench = arbitrary(measured, data.draw)
    assert judged(bench, bench, max_accuracy_drop=0, max_latency_ratio=1, max_size_ratio=1).passed


@quick
@given(data=st.data())
def test_a_worse_one_never_passes_where_a_better_one_fails(
    measured: Benchmark, data: st.DataObject
) -> None:
    before, bench = arbitrary(measured, data.draw), arbitrary(measured, data.draw)
    model = bench.models[1]
    assert model.quality is not None and model.size is not None and bench.data is not None
    labels = [
        1 - reference if data.draw(st.booleans()) else label
        for label, reference in zip(
            model.quality.predictions.labels, bench.data.references, strict=True
        )
    ]
    growth = data.draw(st.floats(1.0, 2.0))
    summary = model.timings[0].summary
    assert summary is not None
    error = summary.ratio.high / summary.ratio.value - 1
    worse = edited(
        bench,
        1,
        predicting(bench, labels),
        size(model.size.directory_bytes + data.draw(st.integers(0, 100))),
        ratio(summary.ratio.value * growth, error),
    )
    found, of_worse = judged(bench, before), judged(worse, before)
    assert set(failures(found)) <= set(failures(of_worse))


@settings(quick, max_examples=5)
@given(data=st.data())
def test_the_order_of_the_examples_does_not_matter(
    measured: Benchmark, data: st.DataObject
) -> None:
    metric = data.draw(st.sampled_from(["accuracy", "f1"]))
    assert measured.task is not None and measured.data is not None
    rows = measured.data.rows
    ids = tuple(f"{row:016x}" for row in range(rows))
    measured = dataclasses.replace(
        measured,
        task=dataclasses.replace(measured.task, metric=metric),
        data=dataclasses.replace(measured.data, example_ids=ids),
    )
    before, bench = arbitrary(measured, data.draw), arbitrary(measured, data.draw)
    order = data.draw(st.permutations(range(rows)))
    assert judged(reordered(bench, order), reordered(before, order)) == judged(bench, before)


def arbitrary(benchmark: Benchmark, draw: Callable[[st.SearchStrategy], object]) -> Benchmark:
    """The benchmark with arbitrary answers, size and ratio of the second model."""
    assert benchmark.data is not None
    rows = benchmark.data.rows
    seed = draw(st.integers(0, 2**32))
    right = draw(st.floats(0.5, 1.0))
    generator = np.random.default_rng(seed)
    return edited(
        benchmark,
        1,
        wrong(benchmark, np.flatnonzero(generator.random(rows) > right).tolist()),
        size(draw(st.integers(1000, 1100))),
        ratio(draw(st.floats(0.3, 2.0)), draw(st.floats(0.0, 0.3))),
    )


def reordered(benchmark: Benchmark, order: list[int]) -> Benchmark:
    assert benchmark.data is not None
    data = dataclasses.replace(
        benchmark.data,
        example_ids=tuple(benchmark.data.example_ids[row] for row in order),
        references=tuple(benchmark.data.references[row] for row in order),
    )
    moved = dataclasses.replace(benchmark, data=data)
    for position, model in enumerate(benchmark.models):
        assert model.quality is not None
        labels = [model.quality.predictions.labels[row] for row in order]
        moved = edited(moved, position, predicting(moved, labels))
    return moved


def test_holm_s_method() -> None:
    # 0.01 <= 0.05 / 4 and 0.015 <= 0.05 / 3, but 0.03 > 0.05 / 2, and nothing after it counts.
    assert holm([0.03, 0.01, 0.04, 0.015], 0.05) == [False, True, False, True]
    assert holm([], 0.05) == []


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_bonferroni_rejects_and_nothing_above_the_risk(
    p_values: list[float], risk: float
) -> None:
    for p_value, rejected in zip(p_values, holm(p_values, risk), strict=True):
        assert rejected or p_value > risk / len(p_values)
        assert p_value <= risk or not rejected
