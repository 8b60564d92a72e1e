"""Energy of a text, from counters of the whole processor package."""

import math
from collections.abc import Callable, Sequence
from random import Random

from pipeline.energy import EnergyMeter

__all__ = ["joules_per_text"]

# The counters move every millisecond or so: a second is read to a thousandth. A run is too short,
# so a model runs alone for a block, unlike the interleaved runs that are timed.
BLOCK_MS = 1000.0
BLOCKS = 3


def joules_per_text(
    meter: EnergyMeter,
    models: Sequence[Callable[[int], None]],
    run_ms: Sequence[float],
    *,
    runs: int,
    texts: int,
    random: Random,
) -> list[float | None]:
    """Energy of all that the packages do while a model runs, idle power and others' work included.

    Every model has three blocks, in turns of random order; a block is one or more passes over all
    runs of the cell, so that all models see the same texts.

    Args:
        meter: the counters.
        models: each runs once on the inputs of the given number.
        run_ms: about how long each takes.
        runs: different runs of the cell.
        texts: texts a run.
        random: source of the order.

    Returns:
        Joules a text, [models]; None each if the counters can no longer be read.
    """
    passes = [math.ceil(BLOCK_MS / (milliseconds * runs)) for milliseconds in run_ms]
    joules = [0.0] * len(models)
    order = list(range(len(models)))
    try:
        for _ in range(BLOCKS):
            random.shuffle(order)
            for index in order:
                before_uj = meter.read_uj()
                for _ in range(passes[index]):
                    for run in range(runs):
                        models[index](run)
                joules[index] += meter.joules_between(before_uj, meter.read_uj())
    except (OSError, ValueError):
        return [None] * len(models)
    return [
        total / (BLOCKS * count * runs * texts) for total, count in zip(joules, passes, strict=True)
    ]
