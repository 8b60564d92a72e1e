"""Timing of a benchmark's cells: all models in turn, and what their runs say."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import Cell, Estimate, MeasuredCell, Timing, TimingSummary
from pipeline.bootstrap import median_estimate, ratio_estimate
from pipeline.config import BenchConfig
from pipeline.data import LabelledText
from pipeline.energy import EnergyMeter
from serve.cpu_use import CpuUse, cores_of_others
from serve.energy import joules_per_text
from serve.scenarios import Run, make_runs
from serve.steadiness import Surroundings, judge_steadiness, widen
from serve.subjects import Inputs, Subject
from serve.warmup import warm_up

__all__ = ["TimedModel", "measure_cell", "summarise_runs", "time_turn"]

_clock_ns = time.perf_counter_ns


@dataclass(frozen=True)
class TimedModel:
    """A model and the inputs of its runs in one cell.

    Attributes:
        run_batch: runs the model on one batch.
        runs: run number i has the inputs ``runs[i]``, from the start again after the last.
    """

    run_batch: Callable[[Inputs], object]
    runs: Sequence[Run]

    def __call__(self, number: int) -> None:
        """Do one run, all its batches."""
        for batch in self.runs[number % len(self.runs)]:
            self.run_batch(batch)


def measure_cell(
    cell: Cell,
    subjects: Sequence[Subject],
    control: Subject,
    data: LabelledText | None,
    config: BenchConfig,
    *,
    meter: EnergyMeter | None,
    random: Random,
    advance: Callable[[], None],
) -> tuple[MeasuredCell, list[Timing]]:
    """Time all models in one cell.

    Args:
        cell: what a run is.
        subjects: the models; ratios are to the first.
        control: a second copy of the first model.
        data: the texts, if there are any.
        config: the configuration: repetitions, warm-up, bootstrap and seed.
        meter: of energy, if the machine has one.
        random: source of the order of the runs.
        advance: called after every repetition.

    Returns:
        The cell with its verdict, and one entry a subject.
    """
    repetitions, seed = config.repetitions, config.seed
    models = [
        TimedModel(
            subject.run,
            make_runs(cell, subject.session, data, repetitions=repetitions, seed=seed),
        )
        for subject in subjects
    ]
    tokens = np.resize([_tokens(run) for run in models[0].runs], repetitions)
    latencies_ms, surroundings = _time_models(
        cell,
        [*models, TimedModel(control.run, models[0].runs)],
        longest=int(tokens.argmax()),
        config=config,
        random=random,
        advance=advance,
    )
    steadiness = judge_steadiness(
        latencies_ms[0],
        latencies_ms[-1],
        tokens,
        surroundings,
        bootstrap_samples=config.bootstrap_samples,
        seed=seed,
    )
    summaries: list[TimingSummary | None] = [None] * len(models)
    if steadiness.verdict != "unusable":
        joules: list[float | None] = [None] * len(models)
        if meter is not None:
            medians_ms = np.median(latencies_ms, axis=1).tolist()[:-1]
            runs = len(models[0].runs)
            joules = joules_per_text(
                meter, models, medians_ms, runs=runs, texts=cell.texts, random=random
            )
        for index in range(len(models)):
            summaries[index] = summarise_runs(
                cell.texts,
                latencies_ms[index],
                latencies_ms[0],
                # The first model takes exactly its own time: nothing to widen.
                control=steadiness.control if index else None,
                joules_per_text=joules[index],
                bootstrap_samples=config.bootstrap_samples,
                seed=seed,
            )
    timings = [
        Timing(tuple(latencies_ms[index].tolist()), summary)
        for index, summary in enumerate(summaries)
    ]
    return MeasuredCell(cell, steadiness), timings


def _tokens(run: Run) -> int:
    return sum(batch["input_ids"].size for batch in run)


def _time_models(
    cell: Cell,
    models: Sequence[Callable[[int], None]],
    *,
    longest: int,
    config: BenchConfig,
    random: Random,
    advance: Callable[[], None],
) -> tuple[NDArray[np.float64], Surroundings]:
    """Warm up, then run every model once a repetition.

    Returns:
        Milliseconds, [models, repetitions], and what was seen meanwhile.
    """
    latencies_ms = np.empty((len(models), config.repetitions))
    with _no_garbage_collection():
        warm = warm_up(
            lambda number: time_turn(models, number, random), least=config.warmup, longest=longest
        )
        before = CpuUse.now()
        for repetition in range(config.repetitions):
            latencies_ms[:, repetition] = time_turn(models, repetition, random)
            advance()
        after = CpuUse.now()
    seen = Surroundings(warm, cell.threads, after.cores, cores_of_others(before, after))
    return latencies_ms, seen


def time_turn(
    models: Sequence[Callable[[int], None]], number: int, random: Random
) -> NDArray[np.float64]:
    """Run all models once on their inputs of that number, in a new random order.

    Whatever slows the machine down for a while then hurts all models alike, and none always runs
    after the same other one.

    Returns:
        Milliseconds, [models].
    """
    order = list(range(len(models)))
    random.shuffle(order)
    latencies_ms = np.empty(len(models))
    for index in order:
        start_ns = _clock_ns()
        models[index](number)
        latencies_ms[index] = (_clock_ns() - start_ns) / 1e6
    return latencies_ms


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector out of the timed runs, as timeit does."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def summarise_runs(
    texts: int,
    latencies_ms: NDArray[np.float64],
    first_ms: NDArray[np.float64],
    *,
    control: Estimate | None,
    joules_per_text: float | None,
    bootstrap_samples: int,
    seed: int,
) -> TimingSummary:
    """Percentiles, throughput and the ratio to the first model of one cell.

    Args:
        texts: texts a run.
        latencies_ms: the model's runs, [repetitions].
        first_ms: the first model's runs of the same repetitions, [repetitions].
        control: how far two equal models were apart, by which the ratio's interval is widened.
        joules_per_text: energy of a text, where it was measured.
        bootstrap_samples: behind each interval.
        seed: of the bootstrap.
    """
    p90_ms, p99_ms = np.percentile(latencies_ms, (90.0, 99.0))
    ratio = ratio_estimate(latencies_ms, first_ms, samples=bootstrap_samples, seed=seed)
    return TimingSummary(
        p50_ms=median_estimate(latencies_ms, samples=bootstrap_samples, seed=seed),
        p90_ms=float(p90_ms),
        p99_ms=float(p99_ms),
        texts_per_second=float(texts * latencies_ms.size / (latencies_ms.sum() / 1000.0)),
        ratio=ratio if control is None else widen(ratio, control),
        joules_per_text=joules_per_text,
    )
