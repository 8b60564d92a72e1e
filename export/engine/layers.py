"""Encoder layers, put together from linear layers, what follows them, and attention."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.engine.analysis import Analysis
from export.engine.attention import Attention, find_attention
from export.engine.epilogue import Epilogue
from export.engine.linear import Linear
from export.engine.normalisation import Norm

__all__ = ["EncoderLayer", "find_layers"]


@dataclass(frozen=True, eq=False)
class EncoderLayer:
    """``a = ln1(x + out(attention(x)))``, then ``ln2(a + down(activation(up(a))))``.

    Attributes:
        source: the states that go in, float32 [batch, sequence, features].
        attention: with the linear layers of query, key and value.
        out: the linear layer after attention.
        up: the first of the feed-forward network.
        down: the second.
        attention_norm: ln1.
        output_norm: ln2.
        activation: a name of the engine's operators.
        output: the states that come out.
    """

    source: ir.Value
    attention: Attention
    out: Linear
    up: Linear
    down: Linear
    attention_norm: Norm
    output_norm: Norm
    activation: str
    output: ir.Value

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The six, in the order in which the operator takes them."""
        attention = self.attention
        return (attention.query, attention.key, attention.value, self.out, self.up, self.down)

    @property
    def density(self) -> float:
        """Share of the six matrices' weights that are not zero."""
        kept = sum(int(np.count_nonzero(linear.weight)) for linear in self.linears)
        return kept / sum(linear.weight.size for linear in self.linears)


def find_layers(
    analysis: Analysis, linears: Sequence[Linear], epilogues: Mapping[Linear, Epilogue]
) -> Iterator[EncoderLayer]:
    """Find all encoder layers that the engine has an operator for.

    Args:
        analysis: of the graph.
        linears: all linear layers, in the order of the graph.
        epilogues: what follows each.
    """
    by_output = {linear.output: linear for linear in linears}
    by_output |= {linear.states_out: linear for linear in linears}
    by_source: dict[ir.Value, list[Linear]] = {}
    for linear in linears:
        by_source.setdefault(linear.states_in, []).append(linear)
    likely: dict[tuple[int, float], None] = {}
    for out in linears:
        after_out = epilogues[out]
        feed_forward = _find_feed_forward(after_out, by_source, epilogues)
        if feed_forward is None or after_out.norm is None or after_out.activation != "none":
            continue
        up, down = feed_forward
        after_down = epilogues[down]
        assert after_down.norm is not None
        if after_down.norm.epsilon != after_out.norm.epsilon:
            continue
        attention = find_attention(analysis, out, by_output, tuple(likely))
        if attention is None or attention.query.states_in is not after_out.residual:
            continue
        likely[attention.heads, attention.scale] = None
        yield EncoderLayer(
            attention.query.states_in,
            attention,
            out,
            up,
            down,
            after_out.norm,
            after_down.norm,
            epilogues[up].activation,
            after_down.output,
        )


def _find_feed_forward(
    after_out: Epilogue,
    by_source: Mapping[ir.Value, Sequence[Linear]],
    epilogues: Mapping[Linear, Epilogue],
) -> tuple[Linear, Linear] | None:
    """The two linear layers that follow the normalised result of attention."""
    for up in by_source.get(after_out.output, ()):
        middle = epilogues[up]
        if middle.residual is not None:
            continue
        for down in by_source.get(middle.output, ()):
            after = epilogues[down]
            if (
                after.activation == "none"
                and after.norm is not None
                and after.residual is after_out.output
                and down.out_features == up.in_features
            ):
                return up, down
    return None
