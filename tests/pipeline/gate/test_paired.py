"""The statistics against scipy's, and what must hold of them for any data."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from pipeline.artifacts.benchmark import Estimate
from pipeline.gate.paired import (
    accuracy_evidence,
    binomial_tail,
    latency_evidence,
    metric_evidence,
)
from pipeline.metrics import METRICS, accuracy

COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 900))


def answers(broken: int, mended: int, others: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.array([True] * broken + [False] * mended + [True] * others)
    now = np.array([False] * broken + [True] * mended + [True] * others)
    return before, now


@given(st.integers(0, 3000), st.integers(0, 3000))
@settings(deadline=None, max_examples=50)
def test_the_tail_is_scipy_s(successes, failures):
    trials = successes + failures
    expected = binomtest(successes, trials, 0.5, alternative="greater").pvalue if trials else 1.0
    assert binomial_tail(successes, trials) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(COUNTS)
@settings(deadline=None)
def test_mcnemar(counts):
    broken, mended, _ = counts
    evidence = accuracy_evidence(*answers(*counts), level=0.05)
    assert evidence.change == pytest.approx(100 * (broken - mended) / sum(counts))
    discordant = broken + mended
    expected = binomtest(broken, discordant, alternative="greater").pvalue if discordant else 1.0
    assert evidence.p_value == pytest.approx(expected)


@given(COUNTS, st.sampled_from([0.05, 0.01, 0.001]))
@settings(deadline=None)
def test_a_detectable_drop_of_accuracy_is_significant_and_one_example_less_is_not(counts, level):
    _, mended, others = counts
    evidence = accuracy_evidence(*answers(*counts), level=level)
    needed = round(evidence.detectable / 100 * sum(counts)) + mended
    assert accuracy_evidence(*answers(needed, mended, others), level=1).p_value <= level
    assert accuracy_evidence(*answers(needed - 1, mended, others), level=1).p_value > level


@given(COUNTS)
@settings(deadline=None)
def test_one_more_broken_example_never_looks_better(counts):
    broken, mended, others = counts
    evidence = accuracy_evidence(*answers(*counts), level=0.05)
    worse = accuracy_evidence(*answers(broken + 1, mended, others), level=0.05)
    assert worse.p_value <= evidence.p_value + 1e-12
    if mended:
        worse = accuracy_evidence(*answers(broken, mended - 1, others), level=0.05)
        assert worse.p_value <= evidence.p_value + 1e-12


@pytest.mark.parametrize("name", METRICS)
def test_the_bootstrap_finds_a_drop_and_no_change(name):
    generator = np.random.default_rng(1)
    references = generator.integers(2, size=400).astype(float)
    good = np.where(generator.random(400) < 0.95, references, 1 - references)
    bad = np.where(generator.random(400) < 0.70, references, 1 - references)
    evidence = metric_evidence(METRICS[name], good, bad, references, level=0.05)
    drop = 100 * (METRICS[name](good, references) - METRICS[name](bad, references))
    assert evidence.change == pytest.approx(drop)
    assert evidence.p_value < 0.01
    assert 0 < evidence.detectable < drop
    assert metric_evidence(METRICS[name], bad, good, references, level=0.05).p_value > 0.99
    same = metric_evidence(METRICS[name], good, good, references, level=0.05)
    assert (same.change, same.p_value, same.detectable) == (0.0, 1.0, 0.0)


def test_the_bootstrap_agrees_with_mcnemar_where_both_apply():
    before, now = answers(30, 15, 500)
    right = np.ones(545)
    bootstrap = metric_evidence(accuracy, before * 1.0, now * 1.0, right, level=0.001)
    assert bootstrap.p_value == pytest.approx(norm.sf(15 / math.sqrt(45)), abs=0.003)


def test_errors_of_both_ratios_add_up():
    before, now = Estimate(1.0, 0.5, math.exp(0.3)), Estimate(1.2, 1.2 * math.exp(-0.4), 9.0)
    evidence = latency_evidence(before, now, level=0.025)
    error = 0.7 / 1.959964
    assert evidence.change == pytest.approx(1.2)
    assert evidence.p_value == pytest.approx(norm.sf(math.log(1.2) / error), rel=1e-6)
    assert evidence.detectable == pytest.approx(math.exp(0.7), rel=1e-6)


def test_ratios_without_an_error():
    exact = Estimate(1.0, 1.0, 1.0)
    assert latency_evidence(exact, exact, level=0.05).p_value == 1.0
    assert latency_evidence(exact, Estimate(1.01, 1.01, 1.01), level=0.05).p_value == 0.0
