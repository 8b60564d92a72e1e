"""The graph with its layers replaced by operators of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.engine.blob import Values, encode, mask_kind
from export.engine.epilogue import Epilogue
from export.engine.layers import EncoderLayer
from export.engine.linear import Linear
from export.engine.normalisation import Norm
from pipeline.errors import ModelError

__all__ = ["DOMAIN", "Rewriter"]

DOMAIN = "smp"


@dataclass
class _Weight:
    """An encoded weight, shared by all nodes that use the same one."""

    value: ir.Value
    name: str
    kind: str


class Rewriter:
    """Replaces parts of a model in place.

    Args:
        model: the model.
        values: how weights are stored.
        compute: how operators compute: ``int8`` or ``fp32``.
    """

    def __init__(self, model: ir.Model, values: Values, compute: str) -> None:
        self._model = model
        self._graph = model.graph
        self._values = values
        self._compute = compute
        self._weights: dict[bytes, _Weight] = {}
        self._vectors: dict[bytes, ir.Value] = {}
        self._masks: dict[ir.Value, ir.Value] = {}
        self._replaced: dict[ir.Value, ir.Value] = {}
        self._encoders: list[ir.Node] = []
        self.encodings: dict[str, str] = {}

    def replace_layer(self, layer: EncoderLayer) -> None:
        """Put one SmpEncoder in the place of a layer."""
        anchor = _producer(layer.output)
        q, k, v, o, f1, f2 = layer.linears
        inputs = [self._now(layer.source), self._int64(layer.attention.mask, anchor)]
        for linear in (q, k, v, o):
            inputs += self._weight_and_bias(linear)
        inputs += self._affine(layer.attention_norm)
        for linear in (f1, f2):
            inputs += self._weight_and_bias(linear)
        inputs += self._affine(layer.output_norm)
        node = ir.node(
            "SmpEncoder",
            inputs,
            attributes={
                "layers": 1,
                "heads": layer.attention.heads,
                "hidden": o.out_features,
                "intermediate": f1.out_features,
                "activation": layer.activation,
                "epsilon": layer.output_norm.epsilon,
                "scale": layer.attention.scale,
                "compute": self._compute,
                "tokens": "all",
            },
            domain=DOMAIN,
            name=f"smp_encoder_{len(self._encoders)}",
        )
        self._replace(anchor, layer.output, node)
        self._encoders.append(node)

    def replace_linear(self, linear: Linear, epilogue: Epilogue) -> None:
        """Put one SmpLinear in the place of a linear layer and what follows it.

        Args:
            linear: the layer.
            epilogue: what follows; its output has the tokens of the layer's ``states_in``.
        """
        inputs: list[ir.Value | None] = [self._now(linear.states_in), self._weight(linear)]
        inputs.append(None if linear.bias is None else self._vector(linear.bias))
        residual = epilogue.residual
        inputs.append(None if residual is None else self._now(residual))
        attributes: dict[str, int | float | str] = {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "activation": epilogue.activation,
            "epsilon": 0.0,
            "compute": self._compute,
        }
        if epilogue.norm is not None:
            inputs += self._affine(epilogue.norm)
            attributes["epsilon"] = epilogue.norm.epsilon
        while inputs[-1] is None:
            inputs.pop()
        node = ir.node(
            "SmpLinear", inputs, attributes=attributes, domain=DOMAIN, name=linear.node.name
        )
        self._replace(_producer(epilogue.output), epilogue.output, node)

    def finish(self) -> int:
        """Drop what is no longer needed, and join encoder layers that follow each other.

        Returns:
            The number of encoder nodes.
        """
        self._graph.opset_imports[DOMAIN] = 1
        RemoveUnusedNodesPass()(self._model)
        self._join()
        taken = set(self._graph.initializers) | {
            str(value.name) for node in self._graph for value in node.outputs
        }
        for weight in self._weights.values():
            if weight.name not in taken and weight.value.name in self._graph.initializers:
                self._graph.initializers.pop(str(weight.value.name))
                weight.value.name = weight.name
                self._graph.register_initializer(weight.value)
        return len(self._encoders)

    def take_first_token(self, node: ir.Node) -> None:
        """Compute only each text's first token in the last layer of an encoder."""
        node.attributes.add(ir.AttrString("tokens", "first"))
        (output,) = node.outputs
        if output.shape is not None:
            output.shape = ir.Shape([output.shape[0], 1, output.shape[2]])

    def take_input_norm(self, node: ir.Node) -> None:
        """Let an encoder normalise its input itself, where nothing else reads what comes out."""
        between = node.inputs[0]
        norm = None if between is None else between.producer()
        if (
            norm is None
            or norm.op_type != "LayerNormalization"
            or norm.domain
            or between is not norm.outputs[0]
            or between.is_graph_output()
            or list(between.consumers()) != [node]
        ):
            return
        epsilon = norm.attributes.get_float("epsilon", 1e-5)
        same = np.isclose(epsilon, node.attributes["epsilon"].as_float(), rtol=1e-4, atol=0)
        last_axis = norm.attributes.get_int("axis", -1) in (-1, 2)
        gamma, beta = (
            None if value is None else value.const_value for value in (*norm.inputs[1:], None)[:2]
        )
        if not same or not last_axis or gamma is None or beta is None:
            return
        vectors = [self._vector(constant.numpy()) for constant in (gamma, beta)]
        whole = ir.node(
            "SmpEncoder",
            [norm.inputs[0], *node.inputs[1:], *vectors],
            attributes=dict(node.attributes),
            domain=DOMAIN,
            name=node.name,
        )
        self._replace(node, node.outputs[0], whole)
        self._graph.remove(node, safe=True)
        constants = [value for value in norm.inputs[1:] if value is not None]
        self._graph.remove(norm, safe=True)
        for value in constants:
            if not value.uses() and value.name in self._graph.initializers:
                self._graph.initializers.pop(str(value.name))
        self._encoders[self._encoders.index(node)] = whole

    @property
    def encoders(self) -> Sequence[ir.Node]:
        """The encoder nodes, in the order of the graph."""
        return tuple(self._encoders)

    def _join(self) -> None:
        joined: list[ir.Node] = []
        for node in self._encoders:
            before = joined[-1] if joined else None
            if before is None or not _continues(before, node):
                joined.append(node)
                continue
            layers = ir.AttrInt64("layers", before.attributes["layers"].as_int() + 1)
            whole = ir.node(
                "SmpEncoder",
                [*before.inputs, *node.inputs[2:]],  # neither has an input norm yet
                attributes={**before.attributes, "layers": layers},
                domain=DOMAIN,
                name=before.name,
            )
            self._replace(node, node.outputs[0], whole)
            self._graph.remove(node, safe=True)
            self._graph.remove(before, safe=True)
            joined[-1] = whole
        self._encoders = joined

    def _replace(self, anchor: ir.Node, value: ir.Value, node: ir.Node) -> None:
        """Insert ``node`` behind ``anchor`` and let its output take the place of ``value``."""
        (output,) = node.outputs
        output.name, value.name = value.name, None
        output.shape, output.type = value.shape, value.type
        self._graph.insert_after(anchor, node)
        value.replace_all_uses_with(output, replace_graph_outputs=True)
        self._replaced[value] = output

    def _now(self, value: ir.Value) -> ir.Value:
        """What stands where a value stood before anything was replaced."""
        return self._replaced.get(value, value)

    def _weight_and_bias(self, linear: Linear) -> list[ir.Value]:
        bias = linear.bias
        if bias is None:
            bias = np.zeros(linear.out_features, np.float32)
        return [self._weight(linear), self._vector(bias)]

    def _affine(self, norm: Norm) -> list[ir.Value]:
        return [self._vector(norm.gamma), self._vector(norm.beta)]

    def _weight(self, linear: Linear) -> ir.Value:
        try:
            blob = encode(linear.weight, self._values)
        except ModelError as error:
            raise ModelError(f"{linear.name} cannot be stored: {error}") from error
        key = blob.tobytes()
        if key not in self._weights:
            value = self._constant(f"{linear.name}.smpw", blob)
            self._weights[key] = _Weight(value, linear.name, mask_kind(blob))
        self.encodings[linear.name] = self._weights[key].kind
        return self._weights[key].value

    def _vector(self, vector: NDArray[np.float32]) -> ir.Value:
        key = vector.astype(np.float32).tobytes()
        if key not in self._vectors:
            name = f"smp.vector.{len(self._vectors)}"
            self._vectors[key] = self._constant(name, vector.astype(np.float32))
        return self._vectors[key]

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        while name in self._graph.initializers:
            name += "_"
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value

    def _int64(self, mask: ir.Value | None, anchor: ir.Node) -> ir.Value | None:
        """The mask as the operator takes it."""
        mask = None if mask is None else self._now(mask)
        if mask is None or mask.dtype == ir.DataType.INT64:
            return mask
        if mask not in self._masks:
            node = ir.node("Cast", [mask], attributes={"to": ir.DataType.INT64.value})
            node.outputs[0].name = f"{mask.name}.int64"
            self._graph.insert_before(anchor, node)
            self._masks[mask] = node.outputs[0]
        return self._masks[mask]


def _continues(before: ir.Node, node: ir.Node) -> bool:
    """Whether one encoder node does nothing but go on where the one before it ends."""
    (between,) = before.outputs
    settings = [
        {name: attribute.value for name, attribute in each.attributes.items() if name != "layers"}
        for each in (before, node)
    ]
    return (
        node.inputs[0] is between
        and node.inputs[1] is before.inputs[1]
        and list(between.consumers()) == [node]
        and not between.is_graph_output()
        and settings[0] == settings[1]
    )


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node
