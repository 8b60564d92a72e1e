"""A graph with sparse weights, rewritten to the operators of the engine."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    IdentityEliminationPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
    ShapeInferencePass,
)

from export.engine.analysis import Analysis
from export.engine.blob import LARGEST_COLUMNS, Values
from export.engine.epilogue import Epilogue, find_epilogue
from export.engine.first_token import reads_first_token_only
from export.engine.layers import find_layers
from export.engine.linear import Linear, find_linears
from export.engine.rewrite import DOMAIN, Rewriter
from pipeline.artifacts.exported import EngineReport
from pipeline.errors import ModelError

__all__ = ["DENSEST", "Converted", "convert"]

# Above this density a matrix stays ONNX Runtime's.
DENSEST = 0.7


@dataclass(frozen=True)
class Converted:
    """A rewritten graph.

    Attributes:
        model: with operators of the domain ``smp``.
        encodings: weight -> ``dense``, ``bitmap`` or ``gaps``, for those in such operators.
        report: what was found and what was left.
    """

    model: onnx.ModelProto
    encodings: dict[str, str]
    report: EngineReport


def convert(model: onnx.ModelProto, *, values: Values, compute: str) -> Converted:
    """Replace encoder layers and linear layers with sparse constant weights.

    They are told by what they compute, not by how an exporter writes them.

    Args:
        model: any graph; it is not changed.
        values: how weights are stored.
        compute: how the operators compute: ``int8`` or ``fp32``.

    Raises:
        ModelError: the graph has no weights that are sparse enough, has operators of the engine
            already, or does not run.
    """
    if any(node.domain == DOMAIN for node in model.graph.node):
        raise ModelError(
            "the graph has operators of the engine already; give the dense or packed model that "
            "it was made from"
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # what is read from a proto shares its tensors, names included
    graph = ir.from_proto(copy)
    for prepare in (
        InlinePass(),
        RemoveInitializersFromInputsPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        IdentityEliminationPass(),
        ShapeInferencePass(),
    ):
        prepare(graph)
    analysis = Analysis(graph)
    linears = list(find_linears(analysis))
    sparse = [linear for linear in linears if _is_sparse(linear)]
    if not sparse:
        raise ModelError(_nothing_sparse(graph, linears))
    analysis.barriers = frozenset(linear.node for linear in linears)
    epilogues = {linear: find_epilogue(analysis, linear) for linear in linears}
    layers = [
        layer
        for layer in find_layers(analysis, linears, epilogues)
        if layer.density <= DENSEST and all(_fits(linear) for linear in layer.linears)
    ]
    in_layers = {linear for layer in layers for linear in layer.linears}
    alone = [linear for linear in sparse if linear not in in_layers]
    parts = _without_overlap(analysis, alone, epilogues)

    _read_shapes_early(analysis)
    rewriter = Rewriter(graph, values, compute)
    for layer in layers:
        rewriter.replace_layer(layer)
    for linear, epilogue in parts:
        rewriter.replace_linear(linear, epilogue)
    nodes = rewriter.finish()
    for node in rewriter.encoders:
        if reads_first_token_only(analysis, node.outputs[0]):
            rewriter.take_first_token(node)
        rewriter.take_input_norm(node)
    written = {*in_layers, *alone}
    kept = sum(int(np.count_nonzero(linear.weight)) for linear in written)
    left = {
        linear.name: f"density {linear.density:.3g}" for linear in linears if linear not in written
    }
    report = EngineReport(
        encoder_layers=len(layers),
        encoder_nodes=nodes,
        linear_layers=len(alone),
        density=kept / sum(linear.weight.size for linear in written),
        left=left,
    )
    return Converted(ir.to_proto(graph), rewriter.encodings, report)


def _without_overlap(
    analysis: Analysis, linears: Sequence[Linear], epilogues: Mapping[Linear, Epilogue]
) -> list[tuple[Linear, Epilogue]]:
    """What each operator computes: of two layers that are added up, one does the addition."""
    parts: list[tuple[Linear, Epilogue]] = []
    taken: set[ir.Value] = set()
    for linear in linears:
        epilogue = epilogues[linear]
        if epilogue.output in taken:
            epilogue = Epilogue("none", None, None, linear.states_out)
        if not _keeps_tokens(analysis, linear):
            linear, epilogue = _between_reshapes(linear)
        taken.add(epilogue.output)
        parts.append((linear, epilogue))
    return parts


def _keeps_tokens(analysis: Analysis, linear: Linear) -> bool:
    """Whether a layer goes from states to states of the same tokens, Reshapes included."""
    shapes = zip(analysis.shapes(linear.states_in), analysis.shapes(linear.states_out), strict=True)
    return all(before[:-1] == after[:-1] for before, after in shapes)


def _between_reshapes(linear: Linear) -> tuple[Linear, Epilogue]:
    """A layer without its Reshapes, and so without what follows the second."""
    alone = dataclasses.replace(linear, states_in=linear.source, states_out=linear.output)
    return alone, Epilogue("none", None, None, linear.output)


def _fits(linear: Linear) -> bool:
    return linear.in_features <= LARGEST_COLUMNS


def _is_sparse(linear: Linear) -> bool:
    return linear.density <= DENSEST and _fits(linear)


def _nothing_sparse(model: ir.Model, linears: Sequence[Linear]) -> str:
    wanted = f"at most {DENSEST:.0%} of the weights not zero"
    if linears:
        size = sum(linear.weight.size for linear in linears)
        kept = sum(int(np.count_nonzero(linear.weight)) for linear in linears)
        found = f"it has {len(linears)} with {kept / size:.1%} not zero together"
    elif any(node.op_type in ("MatMulInteger", "QLinearMatMul") for node in model.graph):
        found = "its matrices are of integers; give the model from before it was quantised"
    else:
        found = "it has no MatMul or Gemm with a constant float32 matrix"
    return f"the graph has no MatMul or Gemm with {wanted}, {found}; prune the model first"


def _read_shapes_early(analysis: Analysis) -> None:
    """Let Shape nodes read the first value of that shape.

    What they read now may be inside of what an operator replaces, and would be kept for its shape.
    """
    first: dict[tuple[tuple[int, ...], ...], ir.Value] = {}
    values = [*analysis.graph.inputs]
    values += [output for node in analysis.graph for output in node.outputs]
    for value in values:
        shapes = tuple(analysis.shapes(value))
        if shapes:
            first.setdefault(shapes, value)
    for node in analysis.graph:
        read = node.inputs[0] if node.op_type == "Shape" else None
        if read is not None and analysis.shapes(read):
            node.replace_input_with(0, first[tuple(analysis.shapes(read))])
