"""Windows of long contexts: a question with part of its context, as many tokens as a model takes.

Neighbouring windows share some tokens, so that an answer at an edge stands whole in one of them
(Devlin et al., BERT, 2019, for SQuAD). The question is never cut. Needs `tokenizers` only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.word_tokens import skip_spaces

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["Window", "encode_windows", "span_tokens"]

_ENCODE_BATCH = 256


@dataclass(frozen=True)
class Window:
    """A question and part of its context.

    Attributes:
        question: the position of the question, from 0.
        ids: token ids, special tokens included; all of them are real, none is padding.
        type_ids: 0 or 1 a token.
        context_start: position of the first token of the context among them.
        offsets: int32 [context tokens, 2]: start and end of each token of the context, in
            characters of the whole context, without spaces before it.
    """

    question: int
    ids: list[int]
    type_ids: list[int]
    context_start: int
    offsets: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def attention_mask(self) -> list[int]:
        """1 a token."""
        return [1] * len(self.ids)


def encode_windows(
    tokenizer: "Tokenizer",
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int,
    stride: int,
    where: str = "",
) -> Iterator[Window]:
    """All windows of some questions, in order.

    Args:
        tokenizer: the tokenizer, without truncation and padding.
        questions: the questions; spaces around them are left away.
        contexts: the context of each.
        max_length: tokens of the longest window, special tokens included.
        stride: tokens of the context that two neighbouring windows share; at most half of what a
            window has room for is taken.
        where: the flag and the file, for messages.

    Raises:
        DataError: a question leaves no room for its context.
    """
    for start in range(0, len(questions), _ENCODE_BATCH):
        stop = start + _ENCODE_BATCH
        stripped = (question.strip() for question in questions[start:stop])
        pairs = list(zip(stripped, contexts[start:stop], strict=True))
        encodings = tokenizer.encode_batch(pairs)
        for number, (encoding, (_, context)) in enumerate(
            zip(encodings, pairs, strict=True), start
        ):
            place = f"{where}: example {number + 1}" if where else "the question"
            yield from _windows_of(
                encoding, context, number, max_length=max_length, stride=stride, place=place
            )


def _windows_of(
    encoding: "Encoding",
    context: str,
    question: int,
    *,
    max_length: int,
    stride: int,
    place: str,
) -> Iterator[Window]:
    """The windows of one encoded pair of question and context, at least one.

    Args:
        encoding: what ``tokenizer.encode(question, context)`` gives, not truncated.
        context: the context.
        question: the position of the question, from 0.
        max_length: tokens of the longest window, special tokens included.
        stride: see :func:`encode_windows`.
        place: what to call the question in messages.

    Raises:
        DataError: the question leaves no room for its context, or that has no tokens.
    """
    of_context = [position for position, part in enumerate(encoding.sequence_ids) if part == 1]
    if not of_context:
        raise DataError(f"{place}: has no tokens in its context; fill or drop it")
    first, last = of_context[0], of_context[-1] + 1
    others = len(encoding.ids) - (last - first)
    room = max_length - others
    if room < 1:
        raise DataError(
            f"{place}: the question and special tokens are {others} tokens, which leaves no room "
            f"for the context in windows of {max_length}; raise --max-length or shorten it"
        )
    ids, type_ids = encoding.ids, encoding.type_ids
    spans = encoding.offsets[first:last]
    offsets = np.array(
        [(skip_spaces(context, start, end), end) for start, end in spans], dtype=np.int32
    )
    step = room - min(stride, room // 2)
    for start in range(first, last, step):
        stop = min(start + room, last)
        yield Window(
            question=question,
            ids=ids[:first] + ids[start:stop] + ids[last:],
            type_ids=type_ids[:first] + type_ids[start:stop] + type_ids[last:],
            context_start=first,
            offsets=offsets[start - first : stop - first],
        )
        if stop == last:
            return


def span_tokens(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """The first and the last token of a span of the context; None where it is not whole in it.

    Args:
        window: the window.
        start: first character of the span in the context.
        end: the character after its last.
    """
    starts, ends = window.offsets[:, 0], window.offsets[:, 1]
    if start < starts[0] or end > ends[-1]:
        return None
    first = max(int(np.searchsorted(starts, start, side="right")) - 1, 0)
    last = int(np.searchsorted(ends, end, side="left"))
    return window.context_start + first, window.context_start + max(first, last)
