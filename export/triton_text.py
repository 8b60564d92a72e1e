"""Texts in, label and probabilities out: a model for the Python backend of Triton.

`smp-pipeline export --format triton` copies this file into a model repository, as model.py. There
it needs numpy and tokenizers, and nothing of smp-pipeline.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

_ENCODING_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}


class TritonPythonModel:
    """Tokenises the texts of all requests that wait, and runs the model once on them together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read what lies beside this file."""
        directory = Path(__file__).parent
        settings = json.loads((directory / "settings.json").read_text(encoding="utf-8"))
        self._model: str = settings["model"]
        self._texts: list[str] = settings["texts"]
        self._inputs: list[str] = settings["inputs"]
        self._labels = [label.encode() for label in settings["labels"]]
        self._pad_token_id: int = settings["pad_token_id"]
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings["max_length"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, in their order; one that cannot be answered gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        batch: list[Encoding] = []
        rows: dict[int, slice] = {}
        for index, request in enumerate(requests):
            try:
                encodings = self._encode(request)
            except ValueError as error:
                responses[index] = _failure(str(error))
                continue
            rows[index] = slice(len(batch), len(batch) + len(encodings))
            batch += encodings
        if not batch:
            return responses
        answer = self._run(batch)
        if answer.has_error():
            message = answer.error().message()
            for index in rows:
                responses[index] = _failure(message)
            return responses
        logits = pb_utils.get_output_tensor_by_name(answer, "logits").as_numpy()
        for index, some in rows.items():
            responses[index] = self._respond(logits[some])
        return responses

    def _encode(self, request: Any) -> list[Encoding]:
        columns = []
        for name in self._texts:
            values = pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)
            try:
                columns.append([value.decode() for value in values])
            except UnicodeDecodeError as error:
                raise ValueError(f"{name} must be UTF-8: {error}") from error
        if not columns[0]:
            raise ValueError(f"{self._texts[0]} must have at least one text")
        texts = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        return list(self._tokenizer.encode_batch(texts))

    def _run(self, batch: list[Encoding]) -> Any:
        shape = (len(batch), max(len(encoding.ids) for encoding in batch))
        tensors = []
        for name in self._inputs:
            filler = self._pad_token_id if name == "input_ids" else 0
            values = np.full(shape, filler, dtype=np.int64)
            for row, encoding in enumerate(batch):
                values[row, : len(encoding.ids)] = getattr(encoding, _ENCODING_FIELDS[name])
            tensors.append(pb_utils.Tensor(name, values))
        return pb_utils.InferenceRequest(
            model_name=self._model, requested_output_names=["logits"], inputs=tensors
        ).exec()

    def _respond(self, logits: NDArray[np.float32]) -> Any:
        if not np.isfinite(logits).all():
            return _failure(f"model {self._model} gave a logit that is NaN or infinite")
        tensors = [pb_utils.Tensor("logits", np.ascontiguousarray(logits))]
        if self._labels:
            labels = [[self._labels[index]] for index in logits.argmax(axis=1)]
            tensors += [
                pb_utils.Tensor("label", np.array(labels, dtype=np.object_)),
                pb_utils.Tensor("probabilities", _softmax(logits)),
            ]
        else:
            tensors.append(pb_utils.Tensor("score", np.ascontiguousarray(logits)))
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _failure(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    shares: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
