"""The gate on question answering and token classification."""

import dataclasses

import pytest

from pipeline.artifacts.benchmark import Benchmark, Estimate, ModelResult, Predictions
from pipeline.artifacts.run import TaskKind
from pipeline.config import CheckConfig
from pipeline.example_values import example_values
from pipeline.gate.judge import judge
from pipeline.gate.judgement import Judgement
from tests.pipeline.gate.edits import edited, steady

KINDS: tuple[TaskKind, ...] = ("question-answering", "token-classification")


def spoilt(benchmark: Benchmark, examples: int) -> Benchmark:
    """The first model's predictions are wrong on so many examples, the first ones."""
    task, data = benchmark.task, benchmark.data
    assert task is not None
    assert data is not None

    def edit(model: ModelResult) -> ModelResult:
        assert model.quality is not None
        said = model.quality.predictions
        wrong = [tuple(0 for _ in tags) for tags in said.tags[:examples]]
        predictions = Predictions(
            (),
            (),
            answers=(("elsewhere",) * examples + said.answers[examples:]) if said.answers else (),
            tags=(*wrong, *said.tags[examples:]),
        )
        metrics = {}
        for name in model.quality.metrics:
            value = example_values(task, name, predictions, data.references).value
            metrics[name] = Estimate(value, value, value)
        quality = dataclasses.replace(model.quality, predictions=predictions, metrics=metrics)
        return dataclasses.replace(model, quality=quality)

    return edited(benchmark, 0, edit)


def quality_of(bench: Benchmark, baseline: Benchmark, **limits: float) -> Judgement:
    config = CheckConfig(bench="bench.json", baseline="baseline.json", **limits)
    judgements = judge(bench, baseline, config).judgements
    return next(each for each in judgements if (each.model, each.kind) == ("right", "quality"))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changed_passes(kind: TaskKind, token_benchmarks: dict[TaskKind, Benchmark]):
    benchmark = steady(token_benchmarks[kind])
    judgement = quality_of(benchmark, benchmark)
    assert (judgement.verdict, judgement.change) == ("passed", 0.0)
    metrics = {"question-answering": "squad_f1", "token-classification": "entity_f1"}
    assert judgement.quantity == metrics[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_drop_fails_and_one_of_chance_does_not(
    kind: TaskKind, token_benchmarks: dict[TaskKind, Benchmark]
):
    baseline = steady(token_benchmarks[kind])
    large = quality_of(spoilt(baseline, 24), baseline)
    assert large.verdict == "failed"
    assert large.change is not None
    assert large.change > 20
    small = quality_of(spoilt(baseline, 2), baseline)
    assert (small.verdict, small.change is not None and small.change > 0.5) == ("passed", True)
    assert quality_of(spoilt(baseline, 24), baseline, max_accuracy_drop=90).verdict == "passed"
    # The other way round it has become better.
    assert quality_of(baseline, spoilt(baseline, 24)).verdict == "passed"


def test_exact_match_is_judged_by_mcnemars_test(token_benchmarks: dict[TaskKind, Benchmark]):
    baseline = steady(token_benchmarks["question-answering"])
    assert baseline.task is not None
    task = dataclasses.replace(baseline.task, metric="exact_match")
    baseline = dataclasses.replace(baseline, task=task)
    judgement = quality_of(spoilt(baseline, 5), baseline)
    assert judgement.p_value == pytest.approx(0.5**5)
    assert judgement.change == pytest.approx(100 * 5 / 48)
