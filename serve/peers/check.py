"""Whether a peer computes what the first model computes: checked before anything is timed."""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import VerificationError
from serve.peers.peer import Peer
from serve.session import Session

__all__ = ["EXACT", "QUANTISED", "ROUNDED", "check_peer"]

# Allowed differences, as a share of max(1, largest absolute value of the first model's output).
EXACT = 1e-3  # the same float32 weights, summed in another order
ROUNDED = 0.1  # the first model stores its weights in fp16 or int8, or computes in int8
QUANTISED = 0.5  # the peer computes in int8, with scales from one batch

_TEXTS = (
    "Good.",
    "A film that nobody asked for, and that everybody will remember.",
    "The story is thin, the actors are not, and two hours pass like one.",
    "bad bad bad",
    "It rained in the morning. By noon the square was dry again and full of people who had "
    "come from all the villages around to hear what the council had decided about the mill.",
)


def check_peer(name: str, peer: Peer, first: Session) -> None:
    """Compare outputs on texts alone, and on all of them in one padded batch.

    Args:
        name: of the peer, for the message.
        peer: the peer.
        first: the first model.

    Raises:
        VerificationError: they differ by more than the peer may.
    """
    encodings = first.encode(_TEXTS)
    batches = [[encoding] for encoding in encodings]
    # Else padding may be among the output, and means nothing.
    if first.task is not None and not first.by_token:
        batches.append(encodings)
    for batch in batches:
        inputs = first.collate(batch)
        expected, found = first.run(inputs), peer.run(inputs)
        if expected.shape != found.shape:
            raise VerificationError(
                f"--peers {name}: {peer.source} gives outputs of the shape {list(found.shape)}, "
                f"{first.layout.source.path} of {list(expected.shape)}; they are not the same model"
            )
        difference, allowed = _difference(expected, found), _allowed(expected, peer.tolerance)
        if not difference <= allowed:  # NaN too
            raise VerificationError(
                f"--peers {name}: {peer.source} does not compute what "
                f"{first.layout.source.path} does: outputs differ by {difference:.3g}, "
                f"{allowed:.3g} is allowed; give the same model, or leave this peer out"
            )


def _difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(np.max(np.abs(expected - found), initial=0.0))


def _allowed(expected: NDArray[np.float32], tolerance: float) -> float:
    return tolerance * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
