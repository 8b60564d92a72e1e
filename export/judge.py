"""Whether the logits of an exported graph are close enough to those of what it was made from."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.exported import Verification
from pipeline.errors import VerificationError

__all__ = ["LEAST_AGREEMENT", "Pair", "judge", "worst"]

# Of the labels on real texts. Rounding flips those that are undecided anyway, hardly any other.
LEAST_AGREEMENT = 0.95

# One batch of an output: of the reference, and of the exported graph.
Pair: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


def judge(
    batches: Sequence[Pair],
    kept: Sequence[NDArray[np.bool_]] | None,
    texts: int,
    tolerance: float,
    *,
    labels: bool = True,
    least_agreement: float = 0.0,
    reference: Literal["pytorch", "onnx"] = "pytorch",
) -> Verification:
    """Decide whether one output of a graph is close enough.

    Args:
        batches: float32 [batch, labels] each. Of every token, with ``kept``: [batch, sequence,
            labels], or [batch, sequence] where a token is chosen.
        kept: bool [batch, sequence] of each batch, the tokens that count; None where the output is
            of texts.
        texts: how many of the rows are real texts, the first ones; 0 if all are made up.
        tolerance: allowed difference as a share of max(1, largest absolute value).
        labels: the largest logit is what is predicted; otherwise the agreement is 1.
        least_agreement: smallest allowed share of equal predictions.
        reference: what computed the first of each pair.

    Raises:
        VerificationError: it is not.
    """
    names = {"pytorch": "PyTorch", "onnx": "the original graph"}
    expected, found = (_counted(batches, kept, side) for side in (0, 1))
    largest = float(np.max(np.abs(found - expected)))
    allowed = tolerance * max(1.0, float(np.max(np.abs(expected))))
    if not largest <= allowed:  # also where the difference is NaN
        where = f"{texts} validation texts" if texts else "made-up inputs"
        raise VerificationError(
            f"ONNX Runtime and {names[reference]} differ by {largest:.3g} in a logit on {where}, "
            f"{allowed:.3g} is allowed; nothing was written. Allow more with "
            "--tolerance, or store the weights with --values fp32 (with --format engine: and "
            "--compute fp32)"
        )
    agreement = _agreement(batches, kept, texts) if labels else 1.0
    if texts and agreement < least_agreement:
        what = "validation texts" if kept is None else "validation texts' tokens"
        if kept is not None and batches[0][0].ndim == 2:
            what = "validation texts' answers"
        raise VerificationError(
            f"only {agreement:.1%} of {texts} {what} get the label that "
            f"{names[reference]} gives them, {least_agreement:.0%} are needed; nothing was "
            "written. Use --compute fp32, or more texts (--verification-samples)"
        )
    return Verification(texts, largest, allowed, agreement, reference)


def worst(results: Sequence[Verification]) -> Verification:
    """The figures of the output that differs most, with the smallest agreement of all."""
    most = max(results, key=lambda result: result.largest_logit_difference / result.tolerance)
    agreement = min(result.label_agreement for result in results)
    return dataclasses.replace(most, label_agreement=agreement)


def _counted(
    batches: Sequence[Pair], kept: Sequence[NDArray[np.bool_]] | None, side: int
) -> NDArray[np.float32]:
    """All values of one side, but for those at tokens that do not count, in one dimension."""
    arrays = [pair[side] for pair in batches]
    if kept is not None:
        arrays = [array[keep] for array, keep in zip(arrays, kept, strict=True)]
    return np.concatenate(arrays, axis=None)


def _agreement(
    batches: Sequence[Pair], kept: Sequence[NDArray[np.bool_]] | None, texts: int
) -> float:
    """Share of equal predictions on the texts, or on all rows where none are texts."""
    left = texts or sum(len(expected) for expected, _ in batches)
    same = []
    for index, (expected, found) in enumerate(batches):
        rows = min(left, len(expected))
        left -= rows
        keep = None if kept is None else kept[index][:rows]
        same.append(_same_predictions(expected[:rows], found[:rows], keep))
    return float(np.mean(np.concatenate(same)))


def _same_predictions(
    expected: NDArray[np.float32], found: NDArray[np.float32], keep: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    same: NDArray[np.bool_]
    if keep is not None and expected.ndim == 2:
        expected, found = (np.where(keep, array, -np.inf) for array in (expected, found))
    same = expected.argmax(axis=-1) == found.argmax(axis=-1)
    return same[keep] if keep is not None and same.ndim == 2 else same
