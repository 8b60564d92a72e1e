"""When a warm-up ends, on made-up latencies."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from serve.warmup import MOST_MS, MOST_TURNS, WINDOW, warm_up

Turn = Callable[[int], NDArray[np.float64]]


def counted(latency_ms: Callable[[int, int], list[float]]) -> tuple[list[int], Turn]:
    """A turn, and the numbers of the inputs that it was called with."""
    numbers: list[int] = []

    def take_turn(number: int) -> NDArray[np.float64]:
        numbers.append(number)
        return np.array(latency_ms(len(numbers), number))

    return numbers, take_turn


def test_stable_runs_are_warm_after_two_windows() -> None:
    numbers, take_turn = counted(lambda turn, number: [10.0, 3.0])
    assert warm_up(take_turn, least=1)
    assert len(numbers) == 1 + 2 * WINDOW


def test_the_least_number_of_turns_is_taken() -> None:
    numbers, take_turn = counted(lambda turn, number: [10.0])
    assert warm_up(take_turn, least=33)
    assert len(numbers) == 1 + 33


def test_the_slowest_to_settle_decides() -> None:
    """The second model falls to its final time over some twenty turns."""
    numbers, take_turn = counted(lambda turn, number: [1.0, 5.0 + 20.0 * 0.8**turn])
    assert warm_up(take_turn, least=3)
    assert 2 * WINDOW < len(numbers) < MOST_TURNS


def test_what_never_settles_ends_and_says_so() -> None:
    numbers, take_turn = counted(lambda turn, number: [1.1**turn])
    assert not warm_up(take_turn, least=3)
    assert len(numbers) == 1 + MOST_TURNS


def test_time_is_a_limit_too() -> None:
    numbers, take_turn = counted(lambda turn, number: [MOST_MS / 10.0 * 1.1**turn])
    assert not warm_up(take_turn, least=3)
    assert len(numbers) == 1 + 2 * WINDOW


@pytest.mark.parametrize("longest", [0, 4, 19])
def test_texts_of_different_length_do_not_pass_for_change(longest: int) -> None:
    numbers, take_turn = counted(lambda turn, number: [1.0 + 7.0 * number])
    assert warm_up(take_turn, least=3, longest=longest)
    assert numbers == [longest, *range(WINDOW), *range(WINDOW)]
