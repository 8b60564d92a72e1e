"""What the gate says of predictions that change at random, with and without a drop, and of sizes.

The chance that a drop is found is computed too: a check fails for some numbers of broken and mended
examples, and their distribution is known.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate_files import STEADY, Rate, benchmark_of, verdict, with_predictions
from pipeline.artifacts.benchmark import Benchmark, Machine, SizeOnDisk
from pipeline.gate.paired import binomial_tail

__all__ = ["binomial", "measure_accuracy", "measure_f1", "measure_size", "power"]

DISCORDANCES = (0.01, 0.02, 0.03, 0.05, 0.10)
DROPS = (0.0, 0.5, 1.0, 2.0, 3.0)
ACCURACY = 0.88
LIMIT = 0.5
RISK = 0.05
# Comparisons that share the risk: one model alone, and two models in a grid of four cells.
COMPARISONS = {"one model": 1, "two models, four cells": 6}
F1_DROP = 0.03
F1_CHECKS = 200


def measure_accuracy(arguments: argparse.Namespace, machine: Machine) -> list[dict[str, Any]]:
    """Computed and simulated rates of failed checks, one entry a case."""
    generator = np.random.default_rng(arguments.seed)
    rows = arguments.examples
    found = []
    for what, comparisons in COMPARISONS.items():
        models = 1 if comparisons == 1 else 2
        empty = benchmark_of(machine, STEADY, models=models)
        for discordance in DISCORDANCES:
            for drop in DROPS:
                if drop / 100 > discordance:
                    continue
                rate = Rate(what)
                for _ in range(arguments.simulations):
                    before, now = _answers(generator, rows, discordance, drop / 100)
                    rate.count(_accuracy_verdict(empty, before, now))
                exact = power(rows, discordance, drop / 100, risk=RISK / comparisons)
                found.append(
                    {"discordance": discordance, "drop": drop, "rate": rate, "exact": exact}
                )
    return found


def power(rows: int, discordance: float, drop: float, *, risk: float) -> float:
    """Probability that a check fails, with the risk that its comparison has.

    Args:
        rows: examples.
        discordance: share of examples that one of two models gets right and the other wrong, as in
            the population.
        drop: of accuracy, as in the population, in [0, discordance].
        risk: the p-value up to which a drop is no chance.
    """
    broken_share = (discordance + drop) / (2 * discordance)
    total = 0.0
    for discordant, probability in enumerate(binomial(rows, discordance)):
        if probability < 1e-12:
            continue
        need = discordant  # the fewest broken examples that fail
        while need >= 0 and _fails(need, discordant, rows, risk):
            need -= 1
        total += probability * float(binomial(discordant, broken_share)[need + 1 :].sum())
    return total


def _fails(broken: int, discordant: int, rows: int, risk: float) -> bool:
    beyond = 100 * (2 * broken - discordant) / rows > LIMIT
    return beyond and binomial_tail(broken, discordant) <= risk


def binomial(trials: int, probability: float) -> NDArray[np.float64]:
    """Probability of 0, 1, ... successes."""
    if probability in (0.0, 1.0):
        sure = np.zeros(trials + 1)
        sure[trials if probability else 0] = 1.0
        return sure
    counts = np.arange(1, trials + 1)
    logs = np.log(trials + 1 - counts) - np.log(counts) + np.log(probability / (1 - probability))
    first = trials * np.log1p(-probability)
    return np.asarray(np.exp(first + np.concatenate([[0.0], np.cumsum(logs)])))


def _answers(
    generator: np.random.Generator, rows: int, discordance: float, drop: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which examples two models get right."""
    broken, mended = (discordance + drop) / 2, (discordance - drop) / 2
    kinds = generator.choice(
        4, size=rows, p=[broken, mended, ACCURACY - broken, 1 - ACCURACY - mended]
    )
    return np.isin(kinds, (0, 2)), np.isin(kinds, (1, 2))


def _accuracy_verdict(empty: Benchmark, before: NDArray[np.bool_], now: NDArray[np.bool_]) -> str:
    """What the gate says of the last model; the reference, if there is one, stays as it is."""
    references = np.ones(len(before), dtype=np.int64)
    files = []
    for right in (before, now):
        answers = [before.astype(np.int64)] * (len(empty.models) - 1) + [right.astype(np.int64)]
        files.append(with_predictions(empty, "accuracy", references, answers))
    return verdict(*files)


def measure_f1(arguments: argparse.Namespace, machine: Machine) -> list[Rate]:
    """Rates of checks by F1 of one model, by the bootstrap."""
    generator = np.random.default_rng(arguments.seed)
    empty = benchmark_of(machine, STEADY, models=1)
    rates = []
    for what, drop in (("nothing", 0.0), (f"{100 * F1_DROP:g} points of accuracy", F1_DROP)):
        rate = Rate(what)
        for _ in range(F1_CHECKS):
            references = generator.integers(2, size=arguments.examples)
            files = []
            for right in _answers(generator, arguments.examples, 0.05, drop):
                labels = np.where(right, references, 1 - references)
                files.append(with_predictions(empty, "f1", references, [labels]))
            rate.count(verdict(*files, max_accuracy_drop=0.0))
        rates.append(rate)
    return rates


def measure_size(machine: Machine) -> dict[str, str]:
    """Growth of a directory -> verdict at the default limit."""
    empty = benchmark_of(machine, STEADY, models=1)

    def of_size(size_bytes: int) -> Benchmark:
        size = SizeOnDisk(size_bytes, size_bytes, size_bytes)
        return replace(empty, models=(replace(empty.models[0], size=size),))

    before = of_size(14_200_000)
    return {
        f"{growth:.2f}": verdict(before, of_size(round(14_200_000 * growth)))
        for growth in (1.0, 1.01, 1.02, 1.03, 1.05)
    }
