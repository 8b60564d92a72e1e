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
from serve.latency import measure_cell, summarise_runs
from serve.subjects import Inputs, open_subjects

__all__ = ["measure_latency"]

SLOWDOWN = 1.2
# The default limit, and any growth at all, which leaves the decision to chance alone.
LIMITS = (1.10, 1.0)
BOOTSTRAP_SAMPLES = 1000


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
        bootstrap_samples=BOOTSTRAP_SAMPLES,
        seed=arguments.seed,
    )
    random = Random(arguments.seed)
    rates = {
        (change, limit, forced): Rate(f"{change}, limit {limit:g}")
        for forced in (False, True)
        for change in ("nothing", f"{SLOWDOWN:g} times the time")
        for limit in LIMITS
    }
    slowdowns = []
    started = time.monotonic()
    cell, now = _bench(config, random)
    verdicts = {cell.steadiness.verdict: 1}
    checks = 0
    while checks < arguments.checks and time.monotonic() - started < 60 * arguments.minutes:
        earlier, before = cell, now
        cell, now = _bench(config, random)
        name = cell.steadiness.verdict
        verdicts[name] = verdicts.get(name, 0) + 1
        slowdowns.append(_median(now[True][2]) / _median(now[True][1]))
        for (change, limit, forced), rate in rates.items():
            first, unchanged, slowed = now[forced]
            timings = [first, unchanged if change == "nothing" else slowed]
            baseline = _file(machine, earlier, before[forced][:2])
            rate.count(verdict(baseline, _file(machine, cell, timings), max_latency_ratio=limit))
        checks += 1
        if checks % 10 == 0:
            done = f"{checks} of {arguments.checks} checks, {time.monotonic() - started:.0f} s"
            print(f"latency: {done}", file=sys.stderr, flush=True)
    return {
        "as_checked": [rate for (*_, forced), rate in rates.items() if not forced],
        "all": [rate for (*_, forced), rate in rates.items() if forced],
        "cells": verdicts,
        "slowdown": float(np.median(slowdowns)),
        "seconds": time.monotonic() - started,
    }


def _bench(
    config: BenchConfig, random: Random
) -> tuple[MeasuredCell, dict[bool, Sequence[Timing]]]:
    """Open the models and time them once: the reference, the model, and the model slowed.

    Returns:
        The cell, and the three timings: as `bench` writes them (False), and with ratios even where
        the cell is unusable (True).
    """
    reference, model = open_subjects(config, threads=1)
    (control,) = open_subjects(replace(config, models=config.models[:1]), threads=1)
    slowed = replace(model, name="slowed", run=_slowed(model.run))
    (batch_size,), (length,) = config.batch_sizes, config.sequence_lengths
    cell, timings = measure_cell(
        Cell("grid", batch_size, batch_size, length, 1),
        [reference, model, slowed],
        control,
        None,
        config,
        meter=None,
        random=random,
        advance=lambda: None,
    )
    return cell, {False: timings, True: _summarised(cell, timings)}


def _summarised(cell: MeasuredCell, timings: Sequence[Timing]) -> list[Timing]:
    """The timings with their ratios even where the cell is unusable."""
    first_ms = np.array(timings[0].latencies_ms)
    return [
        replace(
            timing,
            summary=summarise_runs(
                cell.cell.texts,
                np.array(timing.latencies_ms),
                first_ms,
                control=cell.steadiness.control if index else None,
                joules_per_text=None,
                bootstrap_samples=BOOTSTRAP_SAMPLES,
                seed=0,
            ),
        )
        for index, timing in enumerate(timings)
    ]


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
