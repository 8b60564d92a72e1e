"""One loaded model as the server sees it: request tensors -> rows -> logits -> answer tensors."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.exported import MODEL_FILE, ExportManifest
from pipeline.errors import ArtifactError
from serve.server.errors import InferenceFailed, InvalidRequest, TooLarge
from serve.server.protocol import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Tensor,
    TensorMetadata,
)
from serve.session import Row, Session, TokenRow

__all__ = ["TextModel", "Texts"]

VERSION = "1"


class Texts:
    """The texts of a request, in their order, and the second texts where the model takes pairs.

    Attributes:
        texts: the texts.
        pairs: the second texts; None where the model takes none.
        first: the position in the request of the first of them.
    """

    __slots__ = ("first", "pairs", "texts")

    def __init__(self, texts: Sequence[str], pairs: Sequence[str] | None, first: int = 0) -> None:
        self.texts = texts
        self.pairs = pairs
        self.first = first

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def characters(self) -> int:
        """Of all texts together."""
        return sum(map(len, self.texts)) + sum(map(len, self.pairs or ()))

    def parts(self, characters: int) -> Iterator["Texts"]:
        """The texts in their order, in parts of at most so many characters, or of one text."""
        start = size = 0
        for index, text in enumerate(self.texts):
            length = len(text) + (0 if self.pairs is None else len(self.pairs[index]))
            if index > start and size + length > characters:
                yield self._part(start, index)
                start, size = index, 0
            size += length
        yield self._part(start, len(self.texts))

    def _part(self, start: int, end: int) -> "Texts":
        pairs = None if self.pairs is None else self.pairs[start:end]
        return Texts(self.texts[start:end], pairs, self.first + start)


class TextModel:
    """A model in memory that gives a label or a number a text.

    Those of :mod:`serve.server.token_model` do other things in the same steps.

    Attributes:
        name: what requests call it.
        session: its ONNX Runtime session.
        manifest: what the export said of it.
        metadata: what it takes and gives.
    """

    def __init__(self, name: str, session: Session) -> None:
        self.name = name
        assert session.manifest is not None  # a server opens directories of ours alone
        self.session = session
        self.manifest = session.manifest
        self.metadata = _metadata(name, session, self.manifest)
        self._is_pair = self.manifest.task.text_pair_column is not None
        self._labels = self.manifest.task.labels
        self._outputs = [output.name for output in self.metadata.outputs]

    def read(
        self, request: InferRequest, *, max_texts: int, max_text_chars: int
    ) -> Texts | list[TokenRow]:
        """Check a request against the model and take its texts, or its tokens, out of it.

        Args:
            request: the request.
            max_texts: texts, or rows of tokens, that it may have.
            max_text_chars: characters that each text may have.

        Raises:
            InvalidRequest: names, datatypes, shapes or token ids do not fit the model.
            TooLarge: too many texts, or a text or row that is too long.
        """
        for name in request.outputs:
            if name not in self._outputs:
                raise InvalidRequest(
                    f"model {self.name} has no output {name!r}; it has {', '.join(self._outputs)}"
                )
        names = set(request.inputs)
        if "input_ids" in names:
            self._refuse_others(names, self.session.inputs)
            return self._read_tokens(request, max_texts)
        expected = ("text", "text_pair") if self._is_pair else ("text",)
        self._refuse_others(names, expected)
        missing = [name for name in expected if name not in names]
        if missing:
            raise InvalidRequest(
                f"model {self.name} needs the input {missing[0]} (BYTES, one text an element)"
            )
        texts = _read_texts(request.inputs["text"], max_texts, max_text_chars)
        if not self._is_pair:
            return Texts(texts, None)
        pairs = _read_texts(request.inputs["text_pair"], max_texts, max_text_chars)
        if len(pairs) != len(texts):
            raise InvalidRequest(
                f"text has {len(texts)} elements and text_pair {len(pairs)}; give as many of both"
            )
        return Texts(texts, pairs)

    def _refuse_others(self, names: set[str], expected: Sequence[str]) -> None:
        others = sorted(names - set(expected))
        if others:
            texts = "text and text_pair" if self._is_pair else "text"
            raise InvalidRequest(
                f"the input {others[0]!r} cannot be among these; model {self.name} takes {texts}, "
                f"or else {', '.join(self.session.inputs)}"
            )

    def tokenise(self, texts: Texts) -> Iterable[Row]:
        """Tokens of each text, cut at the model's ``max_length``."""
        encodings = self.session.encode(texts.texts, texts.pairs)
        return [
            TokenRow(encoding.ids, encoding.attention_mask, encoding.type_ids)
            for encoding in encodings
        ]

    def warm_up(self) -> None:
        """Run one text, so that the first request finds everything in place.

        Raises:
            InferenceFailed: the model cannot run it.
        """
        text = ["warm up"]
        self.run(list(self.tokenise(Texts(text, text if self._is_pair else None))))

    def results(self, rows: int) -> Any:
        """Room for what :meth:`run` gives, row by row, for all rows of a request."""
        return np.empty((rows, self.session.outputs), dtype=np.float32)

    def run(self, rows: Sequence[Row]) -> Any:
        """Logits, float32 [rows, outputs], of one batch.

        Raises:
            InferenceFailed: ONNX Runtime cannot run the graph, or a logit is not finite.
        """
        logits = self._run(rows)
        self.check_finite([logits])
        return logits

    def check_finite(self, logits: Sequence[NDArray[np.float32]]) -> None:
        """Refuse logits that are no numbers.

        Raises:
            InferenceFailed: one is NaN or infinite.
        """
        if not all(np.isfinite(each).all() for each in logits):
            raise InferenceFailed(f"model {self.name} gave a logit that is NaN or infinite")

    def _run(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        try:
            return self.session.run(self.session.collate(rows))
        except ArtifactError as error:
            reason = str(error).replace(str(self.session.directory / MODEL_FILE), self.name)
            raise InferenceFailed(reason) from error

    def answer(self, request: InferRequest, logits: Any) -> InferResponse:
        """The answer to a request.

        Args:
            request: the request.
            logits: what :meth:`run` gave for its rows, in their order.
        """
        names = request.outputs or tuple(self._outputs[: 2 if self._labels else 1])
        return InferResponse(
            self.name, VERSION, request.id, tuple(self._output(name, logits) for name in names)
        )

    def _output(self, name: str, logits: NDArray[np.float32]) -> Tensor:
        rows = len(logits)
        if name == "label":
            labels = [self._labels[index] for index in logits.argmax(axis=1).tolist()]
            return Tensor(name, "BYTES", (rows,), labels)
        if name == "score":
            return Tensor(name, "FP32", (rows,), logits[:, 0])
        values = _softmax(logits) if name == "probabilities" else logits
        return Tensor(name, "FP32", values.shape, values)

    def _read_tokens(self, request: InferRequest, max_texts: int) -> list[TokenRow]:
        ids = _read_token_tensor(request.inputs["input_ids"])
        rows, length = ids.shape
        longest = self.session.max_length
        if rows > max_texts:
            raise TooLarge(f"{rows} rows of tokens; this server takes {max_texts} in a request")
        if length > longest:
            raise TooLarge(f"rows of {length} tokens; model {self.name} reads {longest}")
        _check_range("input_ids", ids, self.session.vocabulary_size)
        others = {}
        for name, filler in (("attention_mask", 1), ("token_type_ids", 0)):
            tensor = request.inputs.get(name)
            values = np.full_like(ids, filler) if tensor is None else _read_token_tensor(tensor)
            if values.shape != ids.shape:
                raise InvalidRequest(
                    f"{name} has the shape {list(values.shape)}, input_ids has {list(ids.shape)}; "
                    "give both the same"
                )
            _check_range(name, values, 2)
            others[name] = values
        mask = others["attention_mask"]
        if not mask.any(axis=1).all():
            raise InvalidRequest("attention_mask has a row without a 1; leave that row out")
        # Padding at the end is taken off, so that the row can run beside shorter ones.
        ends = length - mask[:, ::-1].argmax(axis=1)
        return [
            TokenRow(
                ids[row, :end].tolist(),
                mask[row, :end].tolist(),
                others["token_type_ids"][row, :end].tolist(),
            )
            for row, end in enumerate(ends.tolist())
        ]


def _metadata(name: str, session: Session, manifest: ExportManifest) -> ModelMetadata:
    texts = ["text"] if manifest.task.text_pair_column is None else ["text", "text_pair"]
    inputs = [TensorMetadata(text, "BYTES", (-1,)) for text in texts]
    inputs += [TensorMetadata(token, "INT64", (-1, -1)) for token in manifest.inputs]
    count = session.outputs
    if manifest.task.labels:
        outputs = [
            TensorMetadata("label", "BYTES", (-1,)),
            TensorMetadata("probabilities", "FP32", (-1, count)),
        ]
    else:
        outputs = [TensorMetadata("score", "FP32", (-1,))]
    outputs.append(TensorMetadata("logits", "FP32", (-1, count)))
    parameters: dict[str, Any] = {
        "task": manifest.task.kind,
        "labels": list(manifest.task.labels),
        "max_length": manifest.task.max_length,
        "format": manifest.format,
        "method": manifest.method,
        "density": manifest.density,
        "base_model_type": manifest.base_model.model_type,
        "model_bytes": sum(
            file.stat().st_size for file in session.directory.glob(f"{MODEL_FILE}*")
        ),
        "model_sha256": manifest.model_sha256,
        "load_ms": round(session.load_ms, 1),
    }
    return ModelMetadata(
        name, (VERSION,), "smp_onnxruntime", tuple(inputs), tuple(outputs), parameters
    )


def _read_texts(tensor: Tensor, max_texts: int, max_text_chars: int) -> list[str]:
    texts = tensor.data
    if tensor.datatype != "BYTES" or not isinstance(texts, list):
        raise InvalidRequest(f"{tensor.name} must be of the datatype BYTES, is {tensor.datatype}")
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ((), (1,)) or not texts:
        raise InvalidRequest(
            f"{tensor.name} must have the shape [texts] or [texts, 1] with at least one text, "
            f"has {list(tensor.shape)}"
        )
    if len(texts) > max_texts:
        raise TooLarge(f"{len(texts)} texts; this server takes {max_texts} in a request")
    longest = max(map(len, texts))
    if longest > max_text_chars:
        raise TooLarge(
            f"a text of {longest:,} characters; this server takes {max_text_chars:,}; cut it, or "
            "raise --max-text-chars"
        )
    return texts


def _read_token_tensor(tensor: Tensor) -> NDArray[np.int64]:
    values = tensor.data
    if tensor.datatype != "INT64" or isinstance(values, list):
        raise InvalidRequest(f"{tensor.name} must be of the datatype INT64, is {tensor.datatype}")
    if values.ndim != 2 or values.size == 0:
        raise InvalidRequest(
            f"{tensor.name} must have the shape [rows, tokens] with at least one token, has "
            f"{list(values.shape)}"
        )
    return values


def _check_range(name: str, values: NDArray[np.int64], end: int) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= end:
        raise InvalidRequest(f"{name} must be from 0 to {end - 1}, got {low if low < 0 else high}")


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # Not numpy: for the few labels of a few texts its calls take longer than their work.
    shares = []
    for row in logits.tolist():
        largest = max(row)
        powers = [math.exp(logit - largest) for logit in row]
        total = sum(powers)
        shares.append([power / total for power in powers])
    return np.array(shares, dtype=np.float32)
