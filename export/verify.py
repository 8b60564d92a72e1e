"""The checks that a graph passes before anything of it appears: validity, weights, logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx.utils import Extractor
from tokenizers import Encoding, Tokenizer

from export.graph import OUTPUT
from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.exported import Verification
from pipeline.data import LabelledText
from pipeline.errors import VerificationError

__all__ = ["check_graph", "check_weights", "compare_with_pytorch"]

_BATCH_SIZE = 16
_ENCODING_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}


def check_graph(path: Path) -> None:
    """Run the ONNX checker, with strict shape inference.

    Raises:
        VerificationError: the graph is not valid.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise VerificationError(
            f"the ONNX checker refuses the graph ({reason}); nothing was written, try another "
            "--opset"
        ) from error


def check_weights(
    path: Path,
    classifier: TextClassifier,
    masks: Mapping[str, NDArray[np.bool_]],
    dtype: type[np.float16] | type[np.float32],
) -> None:
    """Compare every pruned matrix in the file, decoded by ONNX Runtime, with the baked one.

    Equal bit for bit (after rounding to ``dtype``), and zero wherever the mask removes a weight:
    so the sparsity in the file is that of the masks.

    Raises:
        VerificationError: a matrix differs.
    """
    extractor = Extractor(onnx.load(path))
    parameters = dict(classifier.encoder.named_parameters())
    for name, mask in masks.items():
        stored = _stored_weight(extractor, name)
        baked = parameters[name].detach().numpy().astype(dtype).astype(np.float32)
        # Square matrices stored either way round are told apart by their values.
        for candidate in (stored.T, stored):
            if candidate.shape == baked.shape and np.array_equal(candidate, baked):
                break
        else:
            raise VerificationError(
                f"the weights of {name} in the graph are not the pruned ones; nothing was "
                "written, please report this with the model's type"
            )
        if np.count_nonzero(candidate[~mask]):
            raise VerificationError(
                f"{name} has weights in the graph that its mask removes; nothing was written, "
                "please report this with the model's type"
            )


def _stored_weight(extractor: Extractor, name: str) -> NDArray[np.float32]:
    if name in extractor.initializers:
        return np.asarray(onnx.numpy_helper.to_array(extractor.initializers[name]))
    try:
        decoder = extractor.extract_model([], [name])
    except ValueError as error:
        raise VerificationError(
            f"the graph has no weight {name}; nothing was written, please report this with the "
            "model's type"
        ) from error
    # The producer's options stay: what is checked is what a default session computes.
    session = ort.InferenceSession(decoder.SerializeToString(), providers=["CPUExecutionProvider"])
    (weight,) = session.run([name], {})
    return np.asarray(weight)


def compare_with_pytorch(
    path: Path,
    classifier: TextClassifier,
    tokenizer_path: Path,
    texts: LabelledText,
    *,
    inputs: Sequence[str],
    max_length: int,
    pad_token_id: int,
    tolerance: float,
) -> Verification:
    """Compare logits of ONNX Runtime and PyTorch on real texts.

    In padded batches, on one text alone, and on one input of the full length, tokenised as the
    benchmark and the service do.

    Args:
        path: model.onnx.
        classifier: the baked classifier, unrounded.
        tokenizer_path: tokenizer.json.
        texts: the texts.
        inputs: the graph's inputs.
        max_length: tokens after which a text is cut.
        pad_token_id: the id that pads ``input_ids``.
        tolerance: allowed difference as a share of max(1, largest absolute logit).

    Raises:
        VerificationError: the logits differ by more, or are not finite.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    pairs = texts.pairs
    rows = list(texts.texts) if pairs is None else list(zip(texts.texts, pairs, strict=True))
    encodings = tokenizer.encode_batch(rows)
    batches = [
        _collate(encodings[start : start + _BATCH_SIZE], inputs, pad_token_id)
        for start in range(0, len(encodings), _BATCH_SIZE)
    ]
    alone = _collate(encodings[:1], inputs, pad_token_id)
    longest = {name: np.resize(ids, (1, max_length)) for name, ids in alone.items()}

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected, found = [], []
    for batch in [*batches, alone, longest]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
            expected.append(classifier(**tensors).numpy())
        found.append(np.asarray(session.run([OUTPUT], batch)[0]))
    return _compare(np.concatenate(expected), np.concatenate(found), len(texts), tolerance)


def _collate(
    encodings: Sequence[Encoding], inputs: Sequence[str], pad_token_id: int
) -> dict[str, NDArray[np.int64]]:
    """Pad encodings to the longest of them: int64 [batch, sequence] an input."""
    shape = (len(encodings), max(len(encoding.ids) for encoding in encodings))
    batch = {}
    for name in inputs:
        batch[name] = np.full(shape, pad_token_id if name == "input_ids" else 0, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            batch[name][row, : len(encoding.ids)] = getattr(encoding, _ENCODING_FIELDS[name])
    return batch


def _compare(
    expected: NDArray[np.float32], found: NDArray[np.float32], texts: int, tolerance: float
) -> Verification:
    largest = float(np.max(np.abs(found - expected)))
    allowed = tolerance * max(1.0, float(np.max(np.abs(expected))))
    if not largest <= allowed:  # also where the difference is NaN
        raise VerificationError(
            f"ONNX Runtime and PyTorch differ by {largest:.3g} in a logit on {texts} validation "
            f"texts, {allowed:.3g} is allowed; nothing was written. Allow more with --tolerance, "
            "or, with --format packed, store the weights with --values fp32"
        )
    agreement = 1.0
    if expected.shape[1] > 1:
        same = expected[:texts].argmax(axis=1) == found[:texts].argmax(axis=1)
        agreement = float(np.mean(same))
    return Verification(texts, largest, allowed, agreement)
