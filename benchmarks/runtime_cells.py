"""Timing of one cell: all engines in turn, again and again, so that the machine's moods hit all."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import numpy as np

from benchmarks.runtime_engines import WorkerProcess
from pipeline.artifacts.manifest import to_json
from pipeline.bootstrap import median_estimate, ratio_estimate
from pipeline.machine import usable_cores
from serve.steadiness import DRIFT_LIMIT, VARIATION_LIMIT, variation_and_drift

LEAST_REPETITIONS = 3
MOST_REPETITIONS = 40
# A turn times as many runs as fit in this time, at most five, and counts their median.
BURST_MS = 150.0
MOST_RUNS = 5
# Longer runs warm themselves up.
WARMUP_LIMIT_MS = 500.0
BOOTSTRAP_SAMPLES = 2000


def time_cell(
    workers: Sequence[WorkerProcess], shape: tuple[int, int], seconds: float, random: Random
) -> dict[str, Any]:
    """Time all workers on inputs of one shape, interleaved.

    A turn of an engine is one untimed run, which wakes its threads and caches, and a burst of
    timed runs, of which the median counts. All engines have one turn a repetition, in a new random
    order.

    Args:
        workers: opened ones.
        shape: texts a run, tokens a text.
        seconds: about how long to measure; there are at least three repetitions.
        random: source of the order.

    Returns:
        Plain JSON: per engine the milliseconds of each turn, their median with its interval and
        the spread, and for an engine with stages its milliseconds a run by stage.
    """
    # Some engines compile for minutes here: as many at a time as there are cores.
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(lambda worker: worker.ask("shape", shape=shape), workers))
    estimates = [worker.time(1, 1)[0] for worker in workers]
    runs = [max(1, min(MOST_RUNS, round(BURST_MS / estimate))) for estimate in estimates]
    warmups = [int(estimate < WARMUP_LIMIT_MS) for estimate in estimates]
    cycle_ms = sum(
        estimate * (warmup + count)
        for estimate, warmup, count in zip(estimates, warmups, runs, strict=True)
    )
    repetitions = round(seconds * 1000.0 / cycle_ms)
    repetitions = max(LEAST_REPETITIONS, min(MOST_REPETITIONS, repetitions))
    for worker in workers:
        worker.ask("report")  # the stages' times start anew
    turns_ms = np.empty((len(workers), repetitions))
    order = list(range(len(workers)))
    for repetition in range(repetitions):
        random.shuffle(order)
        for index in order:
            times = workers[index].time(warmups[index], runs[index])
            turns_ms[index, repetition] = float(np.median(times))
    engines = {}
    for index, worker in enumerate(workers):
        variation, drift = variation_and_drift(turns_ms[index])
        done = repetitions * (warmups[index] + runs[index])
        low, high = np.percentile(turns_ms[index], (10.0, 90.0))
        median = median_estimate(turns_ms[index], samples=BOOTSTRAP_SAMPLES, seed=0)
        engines[worker.subject.key] = {
            "engine": worker.subject.engine.name,
            "model": worker.subject.model,
            "turns_ms": turns_ms[index].tolist(),
            "median_ms": to_json(median),
            "spread": float((high - low) / median.value),
            "noisy": variation > VARIATION_LIMIT or abs(drift) > DRIFT_LIMIT,
            "stages_ms": stages_ms(worker.ask("report"), done),
        }
    return {"batch_size": shape[0], "sequence_length": shape[1], "engines": engines}


def ratio(cell: dict[str, Any], peer: str, ours: str) -> dict[str, float]:
    """How many times as long the peer took in one cell, with its interval; both by key."""
    turns = [np.array(cell["engines"][key]["turns_ms"]) for key in (peer, ours)]
    estimate = ratio_estimate(turns[0], turns[1], samples=BOOTSTRAP_SAMPLES, seed=0)
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def stages_ms(report: dict[str, Any], runs: int) -> dict[str, float]:
    """Milliseconds a run by stage, all operators of the session together."""
    total: dict[str, float] = {}
    for node in report.get("nodes", []):
        for stage, seconds in (node.get("profile") or {}).items():
            if isinstance(seconds, int | float):
                total[stage] = total.get(stage, 0.0) + 1000.0 * seconds / runs
    return total
