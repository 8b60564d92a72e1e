"""Latency over a grid of batch sizes and sequence lengths, models timed in turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from random import Random

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import (
    Cell,
    MeasuredCell,
    Steadiness,
    Timing,
    TimingSummary,
)
from pipeline.bootstrap import median_estimate, ratio_estimate
from serve.session import Session

__all__ = [
    "DRIFT_LIMIT",
    "VARIATION_LIMIT",
    "fixed_length_inputs",
    "judge_noise",
    "summarise_cell",
    "time_cell",
    "time_grid",
]

# Beyond either limit a cell is called noisy; a convention of ours, see docs/bench.md.
VARIATION_LIMIT = 0.10
DRIFT_LIMIT = 0.05

Inputs = Mapping[str, NDArray[np.int64]]


def fixed_length_inputs(
    session: Session, texts: Sequence[str], batch_size: int, sequence_length: int
) -> dict[str, NDArray[np.int64]]:
    """Inputs of exactly the given shape, without padding, from real texts.

    The token ids of the texts are strung together, special tokens included, repeated as often as
    is needed, and cut into rows.

    Returns:
        input name -> int64 [batch_size, sequence_length].
    """
    needed = batch_size * sequence_length
    stream: list[int] = []
    for encoding in session.encode(texts[:needed]):
        stream += encoding.ids
        if len(stream) >= needed:
            break
    ids = np.resize(np.array(stream, dtype=np.int64), (batch_size, sequence_length))
    inputs = {name: np.zeros_like(ids) for name in session.inputs}
    inputs["input_ids"] = ids
    if "attention_mask" in inputs:
        inputs["attention_mask"] = np.ones_like(ids)
    return inputs


def time_grid(
    sessions: Sequence[Session],
    texts: Sequence[str],
    *,
    batch_sizes: Sequence[int],
    sequence_lengths: Sequence[int],
    warmup: int,
    repetitions: int,
    bootstrap_samples: int,
    seed: int,
    advance: Callable[[], None],
) -> tuple[list[tuple[Timing, ...]], tuple[MeasuredCell, ...]]:
    """Time every model in every cell of the grid.

    Args:
        sessions: the models; ratios are to the first.
        texts: real texts to draw tokens from.
        batch_sizes: texts a run.
        sequence_lengths: tokens a text.
        warmup: untimed runs of each model in each cell.
        repetitions: timed runs of each model in each cell.
        bootstrap_samples: behind each interval.
        seed: of the order of the runs and of the bootstrap.
        advance: called after every repetition.

    Returns:
        The cells of each model, and one verdict on noise a cell.
    """
    random = Random(seed)
    by_model: list[list[Timing]] = [[] for _ in sessions]
    measured = []
    for batch_size, sequence_length in product(batch_sizes, sequence_lengths):
        shape = (batch_size, sequence_length)
        inputs = [fixed_length_inputs(session, texts, *shape) for session in sessions]
        latencies_ms = time_cell(sessions, inputs, warmup, repetitions, random, advance)
        cell = Cell("grid", batch_size, batch_size, sequence_length, sessions[0].threads)
        measured.append(MeasuredCell(cell, judge_noise(latencies_ms[0])))
        for model, timings in enumerate(by_model):
            timings.append(
                summarise_cell(
                    cell,
                    latencies_ms[model],
                    latencies_ms[0],
                    bootstrap_samples=bootstrap_samples,
                    seed=seed,
                )
            )
    return [tuple(timings) for timings in by_model], tuple(measured)


def time_cell(
    sessions: Sequence[Session],
    inputs: Sequence[Inputs],
    warmup: int,
    repetitions: int,
    random: Random,
    advance: Callable[[], None],
) -> NDArray[np.float64]:
    """Run all models once a repetition, each time in a new random order.

    Whatever slows the machine down for a while then hurts all models alike, and none always runs
    after the same other one.

    Returns:
        Milliseconds, [models, repetitions].
    """
    order = list(range(len(sessions)))
    for _ in range(warmup):
        for index in order:
            sessions[index].run(inputs[index])
    latencies_ms = np.empty((len(sessions), repetitions))
    for repetition in range(repetitions):
        random.shuffle(order)
        for index in order:
            start = time.perf_counter_ns()
            sessions[index].run(inputs[index])
            latencies_ms[index, repetition] = (time.perf_counter_ns() - start) / 1e6
        advance()
    return latencies_ms


def judge_noise(latencies_ms: NDArray[np.float64]) -> Steadiness:
    """Judge how steady the machine was from one model's runs, [repetitions], in their order."""
    half = len(latencies_ms) // 2
    variation = float(np.std(latencies_ms) / np.mean(latencies_ms))
    drift = float(np.median(latencies_ms[-half:]) / np.median(latencies_ms[:half])) - 1.0
    noisy = variation > VARIATION_LIMIT or abs(drift) > DRIFT_LIMIT
    return Steadiness(variation, drift, None, True, "noisy" if noisy else "steady", ())


def summarise_cell(
    cell: Cell,
    latencies_ms: NDArray[np.float64],
    first_ms: NDArray[np.float64],
    *,
    bootstrap_samples: int,
    seed: int,
) -> Timing:
    """Percentiles, throughput and the ratio to the first model of one cell.

    Args:
        cell: what a run is.
        latencies_ms: the model's runs, [repetitions].
        first_ms: the first model's runs of the same repetitions, [repetitions].
        bootstrap_samples: behind each interval.
        seed: of the bootstrap.
    """
    p90_ms, p99_ms = np.percentile(latencies_ms, (90.0, 99.0))
    summary = TimingSummary(
        p50_ms=median_estimate(latencies_ms, samples=bootstrap_samples, seed=seed),
        p90_ms=float(p90_ms),
        p99_ms=float(p99_ms),
        texts_per_second=float(cell.texts * latencies_ms.size / (latencies_ms.sum() / 1000.0)),
        ratio=ratio_estimate(latencies_ms, first_ms, samples=bootstrap_samples, seed=seed),
        joules_per_text=None,
    )
    return Timing(tuple(latencies_ms.tolist()), summary)
