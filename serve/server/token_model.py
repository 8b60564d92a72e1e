"""Models whose logits are of tokens: question answering and token classification.

For texts they answer with spans of them, for rows of tokens with the logits of each token.
"""

import dataclasses
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from pipeline.answers import find_answer
from pipeline.artifacts.exported import graph_outputs
from pipeline.entities import entities_of, has_entities
from pipeline.errors import DataError
from pipeline.windows import Window
from pipeline.word_tokens import first_tokens
from serve.server.errors import InvalidRequest
from serve.server.protocol import InferRequest, InferResponse, Tensor, TensorMetadata
from serve.server.text_model import VERSION, TextModel, Texts
from serve.session import Row, Session, TokenRow

__all__ = ["AnswerModel", "TagModel", "TokenLogits", "open_model"]

_WORD = re.compile(r"\S+")


class TokenLogits(NamedTuple):
    """What was run, and float32 [tokens, outputs] of its own tokens."""

    row: Row
    logits: NDArray[np.float32]


def open_model(name: str, session: Session) -> TextModel:
    """The model as the server sees it, by the kind of its task."""
    kind = None if session.manifest is None else session.manifest.task.kind
    match kind:
        case "question-answering":
            return AnswerModel(name, session)
        case "token-classification":
            return TagModel(name, session)
    return TextModel(name, session)


class _TokenModel(TextModel, ABC):
    """What both kinds share; see :class:`serve.server.text_model.TextModel`.

    Their outputs are for texts or for rows of tokens, never for both.
    """

    text_outputs: tuple[TensorMetadata, ...]

    def __init__(self, name: str, session: Session) -> None:
        super().__init__(name, session)
        names = graph_outputs(self.manifest.task.kind)
        shape = (-1, -1) if len(names) > 1 else (-1, -1, session.outputs)
        logits = [TensorMetadata(output, "FP32", shape) for output in names]
        self.metadata = dataclasses.replace(self.metadata, outputs=(*self.text_outputs, *logits))
        self._outputs = [output.name for output in self.metadata.outputs]
        self._logits = names
        self._texts = tuple(output.name for output in self.text_outputs)

    def read(
        self, request: InferRequest, *, max_texts: int, max_text_chars: int
    ) -> Texts | list[TokenRow]:
        """Take texts or tokens out of a request; see the same of a text model."""
        content = super().read(request, max_texts=max_texts, max_text_chars=max_text_chars)
        given, allowed = "rows of tokens", self._logits
        if isinstance(content, Texts):
            given, allowed = "texts", self._texts
        for output in request.outputs:
            if output not in allowed:
                raise InvalidRequest(
                    f"model {self.name} gives no {output} for {given}; ask for "
                    f"{' or '.join(allowed)}"
                )
        return content

    def results(self, rows: int) -> Any:
        """Room for what :meth:`run` gives, row by row."""
        return [None] * rows

    def run(self, rows: Sequence[Row]) -> Any:
        """What each row of one batch is, with the logits of its tokens."""
        found = self._run(rows)
        results = [
            TokenLogits(row, logits[: len(row.ids)].copy())
            for row, logits in zip(rows, found, strict=True)
        ]
        # What stands at padding means nothing.
        self.check_finite([result.logits for result in results])
        return results

    def answer(self, request: InferRequest, logits: Any) -> InferResponse:
        """The answer to a request, of what :meth:`run` gave for its rows."""
        if "input_ids" in request.inputs:
            length = request.inputs["input_ids"].shape[1]
            tensors, names = self._padded(logits, length), self._logits
        else:
            tensors, names = self.say(request, logits), self._texts
        outputs = tuple(tensors[name] for name in request.outputs or names)
        return InferResponse(self.name, VERSION, request.id, outputs)

    @abstractmethod
    def say(self, request: InferRequest, results: Sequence[TokenLogits]) -> dict[str, Tensor]:
        """The outputs for a request of texts, by name."""

    def _padded(self, results: Sequence[TokenLogits], length: int) -> dict[str, Tensor]:
        """The outputs for rows of so many tokens: logits, 0 behind the end of each row."""
        values = np.zeros((len(results), length, self.session.outputs), np.float32)
        for row, result in enumerate(results):
            values[row, : len(result.logits)] = result.logits
        parts = [values] if len(self._logits) == 1 else np.moveaxis(values, -1, 0)
        return {
            name: Tensor(name, "FP32", part.shape, np.ascontiguousarray(part))
            for name, part in zip(self._logits, parts, strict=True)
        }


class AnswerModel(_TokenModel):
    """Question answering: the span of each context that answers its question."""

    text_outputs = (
        TensorMetadata("answer", "BYTES", (-1,)),
        TensorMetadata("probability", "FP32", (-1,)),
        TensorMetadata("start", "INT64", (-1,)),
        TensorMetadata("end", "INT64", (-1,)),
    )

    def __init__(self, name: str, session: Session) -> None:
        super().__init__(name, session)
        assert self.manifest.task.answers is not None
        self._layout = self.manifest.task.answers

    def tokenise(self, texts: Texts) -> Iterator[Row]:
        """The windows of all contexts, each with its question.

        One by one: a question that leaves little room makes of a long context so many that all
        together would fill the memory.
        """
        assert texts.pairs is not None
        try:
            for window in self.session.windows(texts.texts, texts.pairs):
                yield dataclasses.replace(window, question=window.question + texts.first)
        except DataError as error:
            raise InvalidRequest(
                f"a question leaves no room for its context among the {self.session.max_length} "
                f"tokens that model {self.name} reads, or its context is empty"
            ) from error

    def say(self, request: InferRequest, results: Sequence[TokenLogits]) -> dict[str, Tensor]:
        """The best answer to each question; empty, and both ends 0, where there is none."""
        contexts = request.inputs["text_pair"].data
        answers, probabilities, starts, ends = [], [], [], []
        pairs = [
            (result.row, result.logits) for result in results if isinstance(result.row, Window)
        ]
        for question, group in groupby(pairs, key=lambda pair: pair[0].question):
            windows, logits = zip(*group, strict=True)
            found = find_answer(windows, logits, self._layout)
            text = found.text(str(contexts[question]), self._layout)
            answers.append(text)
            probabilities.append(found.probability)
            starts.append(found.start if text else 0)
            ends.append(found.end if text else 0)
        shape = (len(answers),)
        return {
            "answer": Tensor("answer", "BYTES", shape, answers),
            "probability": Tensor("probability", "FP32", shape, np.array(probabilities, "f4")),
            "start": Tensor("start", "INT64", shape, np.array(starts, "i8")),
            "end": Tensor("end", "INT64", shape, np.array(ends, "i8")),
        }


class TagModel(_TokenModel):
    """Token classification: the entities of each text, whose words are what spaces part."""

    text_outputs = (TensorMetadata("entities", "BYTES", (-1,)),)

    def tokenise(self, texts: Texts) -> Iterable[Row]:
        """Tokens of each text, with where they stand."""
        return self.session.encode(texts.texts, offsets=True)

    def say(self, request: InferRequest, results: Sequence[TokenLogits]) -> dict[str, Tensor]:
        """The entities of each text, a JSON list of objects."""
        texts = request.inputs["text"].data
        found = [
            json.dumps(self._entities(str(text), result), ensure_ascii=False)
            for text, result in zip(texts, results, strict=True)
        ]
        return {"entities": Tensor("entities", "BYTES", (len(found),), found)}

    def _entities(self, text: str, result: TokenLogits) -> list[dict[str, str | int]]:
        """Type, text, first character and the character after the last of each entity."""
        labels = self.manifest.task.labels
        assert isinstance(result.row, Encoding)
        offsets = result.row.offsets
        # Of a text that was cut, no words beyond: there may be a hundred times as many.
        read = max((end for _, end in offsets), default=0)
        matches = takewhile(lambda match: match.start() < read, _WORD.finditer(text))
        words = np.array([match.span() for match in matches], dtype=np.int64).reshape(-1, 2)
        first = first_tokens(offsets, words, text)
        best = result.logits.argmax(axis=-1)
        tags = [labels[best[at]] if at >= 0 else "O" for at in first]
        # Without a prefix such as B-, every word has a label of its own.
        spans = [(tag, word, word) for word, tag in enumerate(tags) if first[word] >= 0]
        if has_entities(labels):
            spans = entities_of(tags)
        return [
            {"type": kind, "text": text[start:end], "start": start, "end": end}
            for kind, begin, last in spans
            for start, end in [(int(words[begin, 0]), int(words[last, 1]))]
        ]
