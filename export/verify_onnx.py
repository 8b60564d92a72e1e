"""A converted graph against the ONNX file that it was made from, both in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.engine.probe import Batch
from export.judge import LEAST_AGREEMENT, judge, worst
from export.verify import open_graph
from pipeline.artifacts.exported import Verification
from pipeline.errors import VerificationError, first_line

__all__ = ["compare_with_onnx"]

# Outputs of tokens whose largest value is what is predicted, by the names that optimum gives them.
_LOGITS = ("logits", "start_logits", "end_logits")


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
        The figures of the output that differs most, and the smallest agreement of predictions:
        of the first output if it is [batch, labels], and of logits of tokens.

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
    for index, (output, first) in enumerate(
        zip(sessions[0].get_outputs(), expected[0], strict=True)
    ):
        if not isinstance(first, np.ndarray) or first.dtype != np.float32:
            continue
        pairs = [
            (arrays[index], others[index]) for arrays, others in zip(expected, found, strict=True)
        ]
        # The engine computes nothing of what belongs to masked tokens.
        by_token = all(
            array.shape[:2] == batch.kept.shape
            for (array, _), batch in zip(pairs, used, strict=True)
        )
        widths = {array.shape[1:] for array, _ in pairs}
        of_texts = index == 0 and first.ndim == 2 and len(widths) == 1 and not by_token
        labels = of_texts or (by_token and output.name in _LOGITS)
        checked.append(
            judge(
                pairs,
                [batch.kept for batch in used] if by_token else None,
                texts,
                tolerance,
                labels=labels,
                least_agreement=LEAST_AGREEMENT if labels else 0.0,
                reference="onnx",
            )
        )
    if not checked:
        raise VerificationError("the graph has no float32 output to compare")
    return worst(checked)
