"""A peer is compared before it is timed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import VerificationError
from serve import open_session
from serve.peers.check import EXACT, QUANTISED, check_peer
from serve.peers.peer import Peer
from serve.session import Session

Change = Callable[[NDArray[np.float32]], NDArray[Any]]


@pytest.fixture
def first(make_model: Callable[..., Path], tmp_path: Path) -> Session:
    return open_session(make_model(tmp_path / "model"), threads=1)


def changed(first: Session, change: Change, tolerance: float) -> Peer:
    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
        return change(first.run(inputs))

    return Peer(run, "the-peer", "cpu", None, None, {}, tolerance)


def test_a_small_difference_passes_and_a_larger_does_not(first: Session) -> None:
    check_peer("twin", changed(first, lambda logits: logits + 5e-4, EXACT), first)
    check_peer("coarse", changed(first, lambda logits: logits * 1.4, QUANTISED), first)
    with pytest.raises(
        VerificationError, match=r"--peers twin: the-peer .* outputs differ by 0\.0"
    ):
        check_peer("twin", changed(first, lambda logits: logits + 0.01, EXACT), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: -logits, "does not compute what"),
        (lambda logits: logits * np.nan, "does not compute what"),
        (lambda logits: logits[:, :1], r"shape \[1, 1\].*of \[1, 2\]; they are not the same"),
    ],
    ids=["inverted", "nan", "fewer"],
)
def test_another_model_is_refused_even_where_much_is_allowed(
    first: Session, change: Change, message: str
) -> None:
    with pytest.raises(VerificationError, match=message):
        check_peer("other", changed(first, change, QUANTISED), first)


def test_padding_is_part_of_the_comparison(first: Session) -> None:
    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
        everything = {**inputs, "attention_mask": np.ones_like(inputs["input_ids"])}
        padded = inputs["attention_mask"].min() == 0
        return first.run(everything) + np.float32(padded)

    peer = Peer(run, "the-peer", "cpu", None, None, {}, EXACT)
    with pytest.raises(VerificationError, match="does not compute what"):
        check_peer("blind", peer, first)
