"""The checks that a graph passes before anything of it appears: validity, weights, logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx.utils import Extractor

from export.comparison_texts import Row, text_batches
from export.engine.blob import decode
from export.graph_file import read_graph
from export.judge import LEAST_AGREEMENT, Pair, judge, worst
from export.quantise import Values, round_weights
from export.sparse_initializers import declare_as_inputs, to_dense_initializers
from pipeline import native
from pipeline.artifacts.classifier import TextClassifier
from pipeline.artifacts.exported import Verification
from pipeline.errors import VerificationError, first_line

__all__ = ["check_graph", "check_weights", "compare_with_pytorch", "open_graph"]

Indices: TypeAlias = NDArray[np.int64]


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
    texts: Sequence[Row],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    max_length: int,
    pad_token_id: int,
    tolerance: float,
    engine: bool = False,
) -> Verification:
    """Compare logits of ONNX Runtime and PyTorch on real texts, at real tokens.

    Args:
        path: model.onnx.
        classifier: the baked classifier, unrounded.
        tokenizer_path: tokenizer.json.
        texts: the texts.
        inputs: the graph's inputs.
        outputs: the graph's outputs.
        max_length: tokens after which a text is cut.
        pad_token_id: the id that pads ``input_ids``.
        tolerance: allowed difference as a share of max(1, largest absolute logit).
        engine: the graph has operators of the engine; then the predicted labels count too.

    Raises:
        MachineError: the engine's library is missing.
        VerificationError: the logits differ by more, or are not finite.
    """
    session = open_graph(path, engine=engine)
    by_token = classifier.layout.pooling == "tokens"
    batches = text_batches(
        tokenizer_path, texts, inputs=inputs, max_length=max_length, pad_token_id=pad_token_id
    )
    kept = [batch["attention_mask"] != 0 for batch in batches]
    compared: list[list[Pair]] = [[] for _ in outputs]
    for batch in batches:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
            logits = classifier(**tensors).numpy()
        expected = [logits] if len(outputs) == 1 else np.moveaxis(logits, -1, 0)
        found = session.run(list(outputs), batch)
        for pairs, wanted, given in zip(compared, expected, found, strict=True):
            pairs.append((np.asarray(wanted), np.asarray(given)))
    return worst(
        [
            judge(
                pairs,
                kept if by_token else None,
                len(texts),
                tolerance,
                least_agreement=LEAST_AGREEMENT if engine else 0.0,
            )
            for pairs in compared
        ]
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
