"""Real benchmarks of one pair of models, again and again, each held against the one before it."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.gate_files import Rate, benchmark_of, verdict
from pipeline.artifacts.benchmark import Benchmark, Cell, Machine, MeasuredCell, Timing
from pipeline.config import BenchConfig
from serve.latency import measure_cell
from serve.subjects import Inputs, open_subjects

__all__ = ["measure_latency"]

SLOWDOWN = 1.2
# The default limit, and any growth at all, which leaves the decision to chance alone.
LIMITS = (1.10, 1.0)


def measure_latency(
    directories: Sequence[Path], arguments: argparse.Namespace, machine: Machine
) -> dict[str, Any]:
    """Rates of checks without a change and with a slow-down."""
    config = BenchConfig(
        models=tuple(directories),
        batch_sizes=(arguments.batch_size,),
        sequence_lengths=(arguments.sequence_length,),
        threads=(1,),
        repetitions=arguments.repetitions,
        seed=arguments.seed,
    )
    random = Random(arguments.seed)
    unchanged = {limit: Rate(f"nothing, limit {limit:g}") for limit in LIMITS}
    slower = {limit: Rate(f"{SLOWDOWN:g} times the time, limit {limit:g}") for limit in LIMITS}
    verdicts: dict[str, int] = {}
    slowdowns = []
    started = time.monotonic()
    cell, timings = _bench(config, random)
    verdicts[cell.steadiness.verdict] = 1
    checks = 0
    while checks < arguments.checks and time.monotonic() - started < 60 * arguments.minutes:
        baseline = _file(machine, cell, timings[:2])
        cell, timings = _bench(config, random)
        name = cell.steadiness.verdict
        verdicts[name] = verdicts.get(name, 0) + 1
        slowdowns.append(_median(timings[2]) / _median(timings[1]))
        same = _file(machine, cell, timings[:2])
        slow = _file(machine, cell, [timings[0], timings[2]])
        for limit in LIMITS:
            unchanged[limit].count(verdict(baseline, same, max_latency_ratio=limit))
            slower[limit].count(verdict(baseline, slow, max_latency_ratio=limit))
        checks += 1
        if checks % 10 == 0:
            done = f"{checks} of {arguments.checks} checks, {time.monotonic() - started:.0f} s"
            print(f"latency: {done}", file=sys.stderr, flush=True)
    return {
        "unchanged": list(unchanged.values()),
        "slower": list(slower.values()),
        "cells": verdicts,
        "slowdown": float(np.median(slowdowns)),
        "seconds": time.monotonic() - started,
    }


def _bench(config: BenchConfig, random: Random) -> tuple[MeasuredCell, list[Timing]]:
    """Open the models and time them once: the reference, the model, and the model slowed."""
    reference, model = open_subjects(config, threads=1)
    (control,) = open_subjects(replace(config, models=config.models[:1]), threads=1)
    slowed = replace(model, name="slowed", run=_slowed(model.run))
    (batch_size,), (length,) = config.batch_sizes, config.sequence_lengths
    return measure_cell(
        Cell("grid", batch_size, batch_size, length, 1),
        [reference, model, slowed],
        control,
        None,
        config,
        meter=None,
        random=random,
        advance=lambda: None,
    )


def _slowed(run: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    """The same, busy for longer."""

    def run_and_wait(inputs: Inputs) -> Any:
        started = time.perf_counter()
        outputs = run(inputs)
        ends = started + SLOWDOWN * (time.perf_counter() - started)
        while time.perf_counter() < ends:
            pass
        return outputs

    return run_and_wait


def _file(machine: Machine, cell: MeasuredCell, timings: Sequence[Timing]) -> Benchmark:
    return benchmark_of(machine, [(cell, timings)], models=2)


def _median(timing: Timing) -> float:
    return float(np.median(timing.latencies_ms))
