"""The same model in the KServe SDK's model server, as a user of that SDK would write it.

    python -m benchmarks.serve_kserve DIR NAME PORT

Runs in an environment that has kserve, onnxruntime, psutil and tokenizers, with this checkout on
its path. The SDK has no option for the address: it listens on all.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

from serve.session import open_session


class TextClassifier(Model):
    """A text in, its label and probabilities out."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self._directory = directory

    def load(self) -> bool:
        """Open the model."""
        self._session = open_session(self._directory)
        assert self._session.manifest is not None
        self._labels = self._session.manifest.task.labels
        self.ready = True
        return self.ready

    def predict(self, payload: InferRequest, headers: Any = None, **others: Any) -> InferResponse:
        """Answer one request."""
        texts = [
            text.decode() if isinstance(text, bytes) else text
            for text in payload.inputs[0].as_numpy().ravel().tolist()
        ]
        logits = self._session.logits(texts)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        labels = [self._labels[index] for index in logits.argmax(axis=1)]
        outputs = [
            InferOutput("label", [len(texts)], "BYTES", labels),
            InferOutput("probabilities", list(logits.shape), "FP32"),
        ]
        outputs[1].set_data_from_numpy(powers / powers.sum(axis=1, keepdims=True), False)
        return InferResponse(payload.id or generate_uuid(), self.name, outputs)


def main() -> None:
    directory, name, port = sys.argv[1:]
    model = TextClassifier(name, Path(directory))
    model.load()
    ModelServer(http_port=int(port), enable_grpc=False, workers=1).start([model])


if __name__ == "__main__":
    main()
