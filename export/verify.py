"""The checks that a graph passes before anything of it appears: validity, weights, logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx.utils import Extractor
from tokenizers import Encoding, Tokenizer

from export.engine.blob import decode
from export.graph import OUTPUT
from export.graph_file import read_graph
from export.quantise import Values, round_weights
from export.sparse_initializers import declare_as_inputs, to_dense_initializers
from pipeline import native
from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.exported import Verification
from pipeline.data import LabelledText
from pipeline.errors import VerificationError, first_line

__all__ = [
    "LEAST_AGREEMENT",
    "check_graph",
    "check_weights",
    "compare_with_pytorch",
    "judge",
    "open_graph",
    "text_batches",
]

# Of the labels on real texts. Rounding flips those that are undecided anyway, hardly any other.
LEAST_AGREEMENT = 0.95

Indices: TypeAlias = NDArray[np.int64]

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
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.sparse_initializer:
            onnx.checker.check_model(str(path), full_check=True)
            return
        onnx.checker.check_model(str(path))
        # Inference takes sparse initializers for sparse tensors, which no operator reads.
        declare_as_inputs(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
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
    values: Values,
    kept: Mapping[str, tuple[Indices | None, Indices | None]] | None = None,
    *,
    embeddings: Values = "fp32",
) -> None:
    """Compare every pruned matrix and embedding table in the file, decoded, with the model's.

    Equal bit for bit (after rounding as ``values`` and ``embeddings`` say), and zero wherever the
    mask removes a weight: so the sparsity in the file is that of the masks.

    Args:
        path: model.onnx.
        classifier: the baked classifier.
        masks: parameter name -> which weights are kept, bool [out_features, in_features].
        values: how the weights are stored.
        kept: parameter name -> which output and which input features the graph still has, in
            their order; None for all, as for a parameter that is not in it. A matrix of which
            nothing is left need not be in the file.
        embeddings: how embedding tables are stored. Those that folding made something else of are
            not in the graph, and left out.

    Raises:
        ArtifactError: the file is damaged.
        VerificationError: a matrix or a table differs, or cannot be decoded.
    """
    model = read_graph(path)
    to_dense_initializers(model)
    extractor = Extractor(model)
    parameters = dict(classifier.encoder.named_parameters())
    for name, mask in masks.items():
        rows, columns = (kept or {}).get(name, (None, None))
        baked = _cut(parameters[name].detach().numpy(), rows, columns)
        if not baked.size:
            continue
        stored = _stored_weight(extractor, name)
        # Square matrices stored either way round are told apart by their values.
        for candidate in (stored.T, stored):
            if candidate.shape == baked.shape and _is_stored(candidate, baked, values):
                break
        else:
            raise VerificationError(
                f"the weights of {name} in the graph are not the pruned ones; nothing was "
                "written, please report this with the model's type"
            )
        if np.count_nonzero(candidate[~_cut(mask, rows, columns)]):
            raise VerificationError(
                f"{name} has weights in the graph that its mask removes; nothing was written, "
                "please report this with the model's type"
            )
    for module_name, module in classifier.encoder.named_modules():
        name = f"{module_name}.weight"
        if isinstance(module, torch.nn.Embedding) and name in extractor.initializers:
            table = module.weight.detach().numpy()
            if not _is_stored(_stored_table(extractor, name), table, embeddings):
                raise VerificationError(
                    f"the embeddings {name} in the graph are not the model's; nothing was "
                    "written, please report this with the model's type"
                )


def _cut(matrix: NDArray[Any], rows: Indices | None, columns: Indices | None) -> NDArray[Any]:
    if rows is not None:
        matrix = matrix[rows]
    return matrix if columns is None else matrix[:, columns]


def _is_stored(stored: NDArray[np.float32], baked: NDArray[np.float32], values: Values) -> bool:
    if np.array_equal(stored, baked):  # what the engine leaves to ONNX Runtime is not rounded
        return True
    rounded, scales = round_weights(baked, values)
    return np.array_equal(stored, rounded if scales is None else rounded * scales[:, None])


def _stored_table(extractor: Extractor, name: str) -> NDArray[np.float32]:
    """An embedding table as its rows are decoded (:mod:`export.embeddings`)."""
    rows = onnx.numpy_helper.to_array(extractor.initializers[name]).astype(np.float32)
    scales = extractor.initializers.get(f"{name}.scales")
    return rows if scales is None else rows * onnx.numpy_helper.to_array(scales)


def _stored_weight(extractor: Extractor, name: str) -> NDArray[np.float32]:
    if name in extractor.initializers:
        array = onnx.numpy_helper.to_array(extractor.initializers[name])
        return decode(array) if array.dtype == np.uint8 else np.asarray(array)
    try:
        decoder = extractor.extract_model([], [name])
    except ValueError as error:
        raise VerificationError(
            f"the graph has no weight {name}; nothing was written, please report this with the "
            "model's type"
        ) from error
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised; no lines of its own beside ours
    # The producer's options stay: what is checked is what a default session computes.
    try:
        session = ort.InferenceSession(
            decoder.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (weight,) = session.run([name], {})
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        reason = first_line(error)
        raise VerificationError(
            f"the weights of {name} in the graph cannot be decoded ({reason}); nothing was "
            "written, please report this with the model's type"
        ) from error
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
    engine: bool = False,
) -> Verification:
    """Compare logits of ONNX Runtime and PyTorch on real texts (:func:`text_batches`).

    Args:
        path: model.onnx.
        classifier: the baked classifier, unrounded.
        tokenizer_path: tokenizer.json.
        texts: the texts.
        inputs: the graph's inputs.
        max_length: tokens after which a text is cut.
        pad_token_id: the id that pads ``input_ids``.
        tolerance: allowed difference as a share of max(1, largest absolute logit).
        engine: the graph has operators of the engine; then the predicted labels count too.

    Raises:
        MachineError: the engine's library is missing.
        VerificationError: the logits differ by more, or are not finite.
    """
    session = open_graph(path, engine=engine)
    expected, found = [], []
    batches = text_batches(
        tokenizer_path, texts, inputs=inputs, max_length=max_length, pad_token_id=pad_token_id
    )
    for batch in batches:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
            expected.append(classifier(**tensors).numpy())
        found.append(np.asarray(session.run([OUTPUT], batch)[0]))
    return judge(
        np.concatenate(expected),
        np.concatenate(found),
        len(texts),
        tolerance,
        least_agreement=LEAST_AGREEMENT if engine else 0.0,
    )


def open_graph(path: Path, *, engine: bool) -> ort.InferenceSession:
    """Open an ONNX file.

    Raises:
        MachineError: the engine's library is missing.
        VerificationError: ONNX Runtime refuses it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised; no lines of its own beside ours
    if engine:
        native.register(options)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        reason = first_line(error)
        raise VerificationError(f"onnxruntime cannot open {path.name} ({reason})") from error


def text_batches(
    tokenizer_path: Path,
    texts: LabelledText,
    *,
    inputs: Sequence[str],
    max_length: int,
    pad_token_id: int,
) -> list[dict[str, NDArray[np.int64]]]:
    """Texts in padded batches, then one text alone, then one input of the full length.

    They are tokenised as the benchmark and the service do.

    Args:
        tokenizer_path: tokenizer.json.
        texts: the texts.
        inputs: the graph's inputs.
        max_length: tokens after which a text is cut.
        pad_token_id: the id that pads ``input_ids``.
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
    return [*batches, alone, longest]


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


def judge(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    texts: int,
    tolerance: float,
    *,
    least_agreement: float = 0.0,
    reference: Literal["pytorch", "onnx"] = "pytorch",
) -> Verification:
    """Decide whether logits are close enough.

    Args:
        expected: float32 [rows, outputs], of the reference.
        found: float32 [rows, outputs], of the exported graph.
        texts: how many of the rows are texts; the first ones.
        tolerance: allowed difference as a share of max(1, largest absolute logit).
        least_agreement: smallest allowed share of texts with the same label.
        reference: what computed ``expected``.

    Raises:
        VerificationError: they are not.
    """
    names = {"pytorch": "PyTorch", "onnx": "the original graph"}
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
    agreement = 1.0
    if expected.shape[1] > 1:
        rows = texts or len(expected)
        same = expected[:rows].argmax(axis=1) == found[:rows].argmax(axis=1)
        agreement = float(np.mean(same))
    if texts and agreement < least_agreement:
        raise VerificationError(
            f"only {agreement:.1%} of {texts} validation texts get the label that "
            f"{names[reference]} gives them, {least_agreement:.0%} are needed; nothing was "
            "written. Use --compute fp32, or more texts (--verification-samples)"
        )
    return Verification(texts, largest, allowed, agreement, reference)
