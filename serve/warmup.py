"""Untimed runs before the timed ones, until the time of a run is stable."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["warm_up"]

# Medians of five shrug off two outliers; a difference of 5 % is the drift at which a cell is noisy.
WINDOW = 5
TOLERANCE = 0.05
# On a machine that never settles, more turns only cost time; 30 s outlast a clock's boost.
MOST_TURNS = 50
MOST_MS = 30_000.0


def warm_up(
    take_turn: Callable[[int], NDArray[np.float64]], *, least: int, longest: int = 0
) -> bool:
    """Take turns until every model's median of the last five is that of the five before.

    All fives are of the same runs, so that texts of different length do not pass for change.

    Args:
        take_turn: runs every model once on the inputs of that number; gives milliseconds, [models].
        least: turns that are taken in any case; ten are needed to compare.
        longest: number of the longest inputs. They come first, so that all memory is there.

    Returns:
        Whether the time became stable before the limits of turns and of time.
    """
    take_turn(longest)
    turns: list[NDArray[np.float64]] = []
    spent_ms = 0.0
    while True:
        turns.append(take_turn(len(turns) % WINDOW))
        spent_ms += float(turns[-1].sum())
        if len(turns) < max(least, 2 * WINDOW):
            continue
        before, last = np.array(turns[-2 * WINDOW :]).reshape(2, WINDOW, -1)
        change = np.median(last, axis=0) / np.median(before, axis=0) - 1.0
        if np.abs(change).max() <= TOLERANCE:
            return True
        if len(turns) >= MOST_TURNS or spent_ms >= MOST_MS:
            return False
