"""What the measurement of the gate computes, on cases that are known."""

import argparse

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from benchmarks.gate_files import Rate, benchmark_of, verdict, with_predictions
from benchmarks.gate_latency import SLOWDOWN, measure_latency
from benchmarks.gate_quality import (
    STEADY,
    binomial,
    measure_accuracy,
    measure_size,
    power,
)
from benchmarks.gate_table import interval, report
from pipeline.gate.paired import binomial_tail
from pipeline.machine import describe_machine


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_the_binomial_distribution_is_scipy_s(rate):
    np.testing.assert_allclose(
        binomial(872, rate), binom.pmf(np.arange(873), 872, rate), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("successes", [0, 3, 100, 200])
def test_the_interval_is_scipy_s(successes):
    expected = binomtest(successes, 200).proportion_ci(method="exact")
    assert interval(successes, 200) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_power_is_the_sum_over_all_outcomes():
    rows, discordance, drop = 20, 0.4, 0.2
    share = (discordance + drop) / (2 * discordance)
    expected = sum(
        binom.pmf(discordant, rows, discordance) * binom.pmf(broken, discordant, share)
        for discordant in range(rows + 1)
        for broken in range(discordant + 1)
        if 2 * broken - discordant > 0 and binomial_tail(broken, discordant) <= 0.05
    )
    assert power(rows, discordance, drop, risk=0.05) == pytest.approx(expected)


def test_made_up_benchmarks_are_judged_as_they_should_be():
    references = np.arange(100) % 2
    empty = benchmark_of(describe_machine(), STEADY, models=1)
    good = with_predictions(empty, "accuracy", references, [references])
    bad = with_predictions(empty, "accuracy", references, [np.zeros_like(references)])
    assert (verdict(good, good), verdict(good, bad), verdict(bad, good)) == (
        "passed",
        "failed",
        "passed",
    )


@pytest.mark.slow
def test_the_report_of_a_few_checks(make_model, tmp_path):
    directories = [make_model(tmp_path / name) for name in ("reference", "model")]
    arguments = argparse.Namespace(
        checks=2, minutes=10, simulations=3, examples=872, seed=0, repetitions=3, density=0.1
    )
    arguments.batch_size, arguments.sequence_length = 1, 8
    machine = describe_machine()
    latency = measure_latency(directories, arguments, machine)
    assert sum(latency["cells"].values()) == 3
    assert all(rate.checks + rate.unmeasured == 2 for rate in latency["as_checked"])
    assert [rate.checks for rate in latency["all"]] == [2] * 4
    content = {
        "machine": {},
        "versions": {},
        "settings": {key: str(value) for key, value in vars(arguments).items()},
        "shape": "a tiny graph",
        "latency": latency,
        "accuracy": measure_accuracy(arguments, machine),
        "f1": [Rate("nothing", checks=200, failed=10)],
        "size": measure_size(machine),
    }
    text = "\n".join(report(content))
    assert f"| {SLOWDOWN:g} times the time, limit 1.1 |" in text
    assert "| nothing | 200 | 10 | 0.050 (0.024 to 0.090) | 0 | 0.55 |" in text
    assert "| 1.05 | failed |" in text
    assert "| 1.02 | passed |" in text
