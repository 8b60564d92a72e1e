"""What goes into a graph and what comes out of it, compared with what a tokenizer gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.exported import graph_outputs
from pipeline.errors import ArtifactError
from serve.layout import ModelLayout

__all__ = ["ENCODING_FIELDS", "LOGITS", "GraphPorts", "read_ports"]

LOGITS = "logits"
# The graph's input -> the attribute of the tokenizer's encoding.
ENCODING_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True)
class GraphPorts:
    """Inputs and outputs of a graph.

    Attributes:
        inputs: name -> integer type, int64 or int32.
        outputs: the outputs that are fetched, the one that counts first.
        only_output: the graph has no other output, or calls the first one logits.
        joined: all of them count, for instance the logits of starts and of ends.
    """

    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    only_output: bool
    joined: bool = False

    def feeds(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Inputs in the types that the graph takes; those that it lacks are left out."""
        return {name: inputs[name].astype(kind, copy=False) for name, kind in self.inputs.items()}

    def result(self, found: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """What counts of the fetched outputs; several are put together along a new last axis."""
        return np.stack(found, axis=-1) if self.joined else np.asarray(found[0])


def read_ports(layout: ModelLayout, runtime_session: Any) -> GraphPorts:
    """Inputs and outputs of a graph, checked.

    Args:
        layout: the model's files.
        runtime_session: ``onnxruntime.InferenceSession``.

    Raises:
        ArtifactError: no tokenizer gives what the graph takes, or it is not as the manifest says.
    """
    inputs = {entry.name: entry.type for entry in runtime_session.get_inputs()}
    outputs = {entry.name: entry for entry in runtime_session.get_outputs()}
    if layout.manifest is not None:
        _check_ours(layout, inputs, {name: entry.type for name, entry in outputs.items()})
        inputs_taken = dict.fromkeys(layout.manifest.inputs, np.int64)
        names = graph_outputs(layout.manifest.task.kind)
        return GraphPorts(inputs_taken, names, True, joined=len(names) > 1)
    for entry in runtime_session.get_inputs():
        _check_input(layout, entry)
    if "input_ids" not in inputs:
        raise ArtifactError(
            f"{layout.graph} has no input input_ids, only {', '.join(inputs)}; only models of "
            "token ids can be measured"
        )
    integers = {name: _INTEGERS[kind] for name, kind in inputs.items()}
    floats = [entry for entry in outputs.values() if entry.type in _FLOATS]
    if LOGITS in outputs:
        return GraphPorts(integers, (LOGITS,), True)
    # One output by itself is computed no faster: all are fetched, as a user would.
    vectors = [entry.name for entry in floats if len(entry.shape) == 2]
    first = (vectors or [entry.name for entry in floats] or list(outputs))[0]
    others = tuple(name for name in outputs if name != first)
    return GraphPorts(integers, (first, *others), not others)


def _check_input(layout: ModelLayout, entry: Any) -> None:
    if entry.name not in ENCODING_FIELDS:
        raise ArtifactError(
            f"{layout.graph}: no tokenizer gives the input {entry.name}; known are "
            f"{', '.join(ENCODING_FIELDS)}; export it with these alone"
        )
    if entry.type not in _INTEGERS:
        raise ArtifactError(
            f"{layout.graph}: input {entry.name} must be int64 or int32, is {entry.type}"
        )
    if len(entry.shape) != 2 or any(isinstance(size, int) for size in entry.shape):
        raise ArtifactError(
            f"{layout.graph}: input {entry.name} has the shape {list(entry.shape)}, where both "
            "sizes must be open; export it with dynamic axes [batch, sequence]"
        )


def _check_ours(layout: ModelLayout, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    assert layout.manifest is not None
    names = layout.manifest.inputs
    if set(inputs) != set(names) or "input_ids" not in inputs:
        raise ArtifactError(
            f"{layout.graph}: expected the inputs {', '.join(names)} as the manifest says, "
            f"got {', '.join(inputs)}; export the model again"
        )
    wrong = sorted(name for name, kind in inputs.items() if kind != "tensor(int64)")
    if wrong:
        raise ArtifactError(
            f"{layout.graph}: input {wrong[0]} must be int64, is {inputs[wrong[0]]}; "
            "export the model again"
        )
    expected = graph_outputs(layout.manifest.task.kind)
    if outputs != dict.fromkeys(expected, "tensor(float)"):
        wanted = "one float32 output" if len(expected) == 1 else f"{len(expected)} float32 outputs"
        raise ArtifactError(
            f"{layout.graph}: expected {wanted} {', '.join(map(repr, expected))}, got "
            f"{', '.join(f'{name} ({kind})' for name, kind in outputs.items())}; "
            "export the model again"
        )
