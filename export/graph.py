"""From a baked PyTorch classifier to an ONNX graph with plain, named weights."""

import inspect
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    InlinePass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)
from onnxscript import optimizer
from torch.export import Dim

from pipeline import __version__
from pipeline.artifacts.classifier import TextClassifier
from pipeline.errors import ModelError

__all__ = ["export_graph", "graph_inputs", "sample_inputs", "silence"]

_AXES = ("batch", "sequence")


def graph_inputs(tokenizer_inputs: Sequence[str], classifier: TextClassifier) -> tuple[str, ...]:
    """The inputs of the graph: what the tokenizer gives and the encoder takes, in its order.

    Args:
        tokenizer_inputs: the tokenizer's ``model_input_names``.
        classifier: the classifier.

    Raises:
        ModelError: token ids or the attention mask are not among them.
    """
    taken = set(inspect.signature(classifier.encoder.forward).parameters)
    taken &= set(inspect.signature(classifier.forward).parameters)
    names = tuple(name for name in tokenizer_inputs if name in taken)
    if not {"input_ids", "attention_mask"} <= set(names):
        raise ModelError(
            "expected a tokenizer that gives input_ids and attention_mask, this one gives "
            f"{', '.join(tokenizer_inputs)}; correct model_input_names in tokenizer_config.json"
        )
    return names


def sample_inputs(names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Inputs to trace with, int64 [2, 3]: neither axis is 0 or 1, which torch.export would fix."""
    # A tensor of its own for every input: torch.export takes one tensor given twice as one input.
    rows = {"input_ids": [[1, 2, 3], [2, 1, 0]], "attention_mask": [[1, 1, 1], [1, 1, 0]]}
    return {name: torch.tensor(rows.get(name, [[0, 0, 0], [0, 0, 0]])) for name in names}


def export_graph(
    classifier: TextClassifier,
    pruned: Collection[str],
    inputs: Sequence[str],
    opset: int,
    *,
    outputs: Sequence[str] = ("logits",),
    fold_constants: bool = True,
) -> ir.Model:
    """Export a classifier through torch.export.

    Every encoder weight becomes one initializer, named as the parameter in the base model. The
    pruned ones are stored as MatMul takes them, ``[in_features, out_features]``; nothing else is
    made of them, so their zeros can be counted in the file.

    Args:
        classifier: the baked classifier, in evaluation mode.
        pruned: parameter names of the pruned matrices in the encoder.
        inputs: the input names (:func:`graph_inputs`).
        opset: the opset of the default domain.
        outputs: the output names; several take the classifier's logits apart, one each.
        fold_constants: compute what depends on no input, and simplify; otherwise the graph is as
            traced, but for the pruned weights.

    Returns:
        A model with inputs int64 [batch, sequence] and the classifier's logits, float32, as
        output, without shapes, names or traces of this machine.

    Raises:
        ModelError: torch.onnx cannot export this architecture.
    """
    model = _trace(classifier, inputs, outputs, opset)
    graph = model.graph
    _name_after_parameters(graph, [name for name, _ in classifier.encoder.named_parameters()])
    missing = sorted(set(pruned) - set(graph.initializers))
    if missing:
        raise ModelError(
            f"the ONNX graph does not use {missing[0]} as it is; models of type "
            f"{_model_type(classifier)} cannot be exported yet"
        )
    for name in pruned:
        _store_transposed(graph, name)
    if fold_constants:
        _optimise(model, pruned)
    else:
        _tidy(model)
    ClearMetadataAndDocStringPass()(model)
    axes: list[str | None] = [*_AXES] if classifier.layout.pooling == "tokens" else [_AXES[0]]
    _describe(model, axes if len(outputs) > 1 else [*axes, None])
    return model


class _PartedClassifier(TextClassifier):
    """Each of the logits as an output of its own."""

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """The logits, float [batch, sequence] each."""
        return super().forward(input_ids, attention_mask, token_type_ids).unbind(-1)


def _model_type(classifier: TextClassifier) -> str:
    return str(classifier.encoder.config.model_type)


def _trace(
    classifier: TextClassifier, inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> ir.Model:
    if len(outputs) > 1:
        classifier = _PartedClassifier(
            classifier.encoder, classifier.head, classifier.layout
        ).eval()
    axes = {name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in inputs}
    try:
        with silence(), torch.no_grad():
            program = torch.onnx.export(
                classifier,
                (),
                kwargs=sample_inputs(inputs),
                dynamo=True,
                dynamic_shapes=axes,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=opset,
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # torch.export lets out errors of many kinds
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0].strip() if lines else type(error).__name__
        raise ModelError(
            f"models of type {_model_type(classifier)} cannot be exported by torch "
            f"{torch.__version__} at opset {opset} ({reason}); try another --opset"
        ) from error
    assert program is not None
    return program.model


def _name_after_parameters(graph: ir.Graph, names: Sequence[str]) -> None:
    """Take the classifier's prefix off the names of encoder weights."""
    for name in names:
        value = graph.initializers.get(f"encoder.{name}")
        if value is not None:
            value.name = name


def _store_transposed(graph: ir.Graph, name: str) -> None:
    """Replace a weight and the Transposes that are all its uses by the transposed weight."""
    weight = graph.initializers[name]
    consumers = [node for node, _ in weight.uses()]
    if not consumers or any(node.op_type != "Transpose" for node in consumers):
        return
    assert weight.const_value is not None
    array = np.ascontiguousarray(weight.const_value.numpy().T)
    graph.initializers.pop(name)
    weight.name = None
    stored = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(stored)
    for node in consumers:
        node.outputs[0].replace_all_uses_with(stored)
        graph.remove(node, safe=True)


def _optimise(model: ir.Model, pruned: Collection[str]) -> None:
    """Fold and simplify everything but the pruned weights.

    They stand as inputs meanwhile, so that no rule can fold, merge or rename them.
    """
    graph = model.graph
    weights = [graph.initializers.pop(name) for name in pruned]
    tensors = [weight.const_value for weight in weights]
    for weight in weights:
        weight.const_value = None
        graph.inputs.append(weight)
    with silence():
        optimizer.optimize(model)
    for weight, tensor in zip(weights, tensors, strict=True):
        graph.inputs.remove(weight)
        weight.const_value = tensor
        graph.register_initializer(weight)


def _tidy(model: ir.Model) -> None:
    """Inline functions and drop what nothing uses; compute nothing."""
    InlinePass()(model)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    RemoveUnusedOpsetsPass()(model)


def _describe(model: ir.Model, output_axes: Sequence[str | None]) -> None:
    """Name the axes and the producer; drop inferred shapes, whose symbols mean nothing outside."""
    graph = model.graph
    for node in graph.all_nodes():
        for output in node.outputs:
            output.shape = None
            if not output.is_graph_output():
                output.type = None
    for value in graph.inputs:
        value.shape = ir.Shape(_AXES)
    for logits in graph.outputs:
        logits.shape = ir.Shape(output_axes)
    graph.name = "smp_pipeline"
    model.producer_name = "smp-pipeline"
    model.producer_version = __version__


@contextmanager
def silence() -> Iterator[None]:
    """Keep warnings and log lines of torch.onnx and onnxscript off the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
