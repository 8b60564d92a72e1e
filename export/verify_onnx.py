"""A converted graph against the ONNX file that it was made from, both in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.engine.probe import Batch
from export.verify import LEAST_AGREEMENT, judge, open_graph
from pipeline.artifacts.exported import Verification
from pipeline.errors import VerificationError, first_line

__all__ = ["compare_with_onnx"]


def compare_with_onnx(
    path: Path, original: Path, batches: Sequence[Batch], *, texts: int, tolerance: float
) -> Verification:
    """Compare all float32 outputs of two graphs, at the tokens that the mask keeps.

    Args:
        path: the converted file.
        original: the file that it was made from.
        batches: the inputs.
        texts: how many of their rows are real texts, the first ones; 0 if they are made up.
        tolerance: allowed difference as a share of max(1, largest absolute output).

    Returns:
        The figures of the output that differs most, and the agreement of the labels if the first
        output is [batch, labels].

    Raises:
        MachineError: the engine's library is missing.
        VerificationError: the outputs differ by more, or either file does not run.
    """
    sessions = [open_graph(original, engine=False), open_graph(path, engine=True)]
    expected, found, used = [], [], []
    for batch in batches:
        try:
            wanted = sessions[0].run(None, batch.feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            if texts:
                raise VerificationError(f"{original} does not run: {first_line(error)}") from error
            continue  # made-up inputs need not suit every graph
        try:
            found.append(sessions[1].run(None, batch.feeds))
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise VerificationError(
                f"the converted graph does not run on inputs that the original runs on "
                f"({first_line(error)}); nothing was written, please report this"
            ) from error
        expected.append(wanted)
        used.append(batch)
    if not used:
        raise VerificationError(f"{original} does not run on any made-up inputs")
    checked = []
    for index, first in enumerate(expected[0]):
        if not isinstance(first, np.ndarray) or first.dtype != np.float32:
            continue
        pairs = [(arrays[index], batch) for arrays, batch in zip(expected, used, strict=True)]
        # The engine computes nothing of what belongs to masked tokens.
        by_token = all(array.shape[:2] == batch.kept.shape for array, batch in pairs)
        widths = {array.shape[1:] for array, _ in pairs}
        are_logits = index == 0 and first.ndim == 2 and len(widths) == 1 and not by_token
        wanted, given = (
            np.concatenate(
                [
                    arrays[index][batch.kept] if by_token else arrays[index]
                    for arrays, batch in zip(each, used, strict=True)
                ],
                axis=0 if are_logits else None,
            )
            for each in (expected, found)
        )
        checked.append(
            judge(
                wanted.reshape(len(wanted), -1),
                given.reshape(len(given), -1),
                texts,
                tolerance,
                least_agreement=LEAST_AGREEMENT if are_logits else 0.0,
                reference="onnx",
            )
        )
    if not checked:
        raise VerificationError("the graph has no float32 output to compare")
    return max(checked, key=lambda result: result.largest_logit_difference / result.tolerance)
