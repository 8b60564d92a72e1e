"""Attention of several heads as one operator, from the projections to the joined heads.

The three projections stay MatMuls of their own, so that every weight stays one initializer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern
from onnxscript.rewriter.ort_fusions.sdpa import SDPA

from export.fusion.shapes import BATCH, SEQUENCE, dimensions

__all__ = ["fuse_attention"]

_SWAP_HEADS = [0, 2, 1, 3]


def fuse_attention(model: ir.Model) -> int:
    """Replace attention by com.microsoft MultiHeadAttention.

    Args:
        model: a model whose shapes are known.

    Returns:
        How many were put in.
    """
    rules = pattern.RewriteRuleSet([_ComposedAttention.rule(), _StandardAttention.rule()])
    return int(rules.apply_to_model(model))


@dataclass(frozen=True)
class _Heads:
    """What goes into the heads: values [batch, sequence, heads * head size].

    Attributes:
        heads: how many there are.
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    heads: int

    @classmethod
    def split_from(
        cls, query: ir.Value, key: ir.Value, value: ir.Value, key_swapped: bool
    ) -> "_Heads | None":
        """Find what was split into [batch, heads, sequence, head size].

        Args:
            query: the split query.
            key: the split key.
            value: the split value.
            key_swapped: whether heads come before the sequence in the key too.
        """
        sizes = dimensions(query)
        if sizes is None or len(sizes) != 4 or not isinstance(sizes[1], int):
            return None
        heads = sizes[1]
        joined_query = _joined(query, heads, swapped=True)
        joined_key = _joined(key, heads, swapped=key_swapped)
        joined_value = _joined(value, heads, swapped=True)
        if joined_query is None or joined_key is None or joined_value is None:
            return None
        return cls(joined_query, joined_key, joined_value, heads)

    def attend(self, op: Any, bias: ir.Value | None, scale: float | None) -> ir.Value:
        """The operator; ``bias`` is [batch or 1, heads or 1, sequence, sequence]."""
        attended: ir.Value = op.MultiHeadAttention(
            self.query,
            self.key,
            self.value,
            None,
            None,
            bias,
            num_heads=self.heads,
            scale=scale,
            _domain="com.microsoft",
        )
        return attended


def _joined(split: ir.Value, heads: int, swapped: bool) -> ir.Value | None:
    """The value [batch, sequence, size] that was split into heads."""
    if swapped:
        transpose = split.producer()
        if transpose is None or transpose.op_type != "Transpose":
            return None
        if list(transpose.attributes.get_ints("perm", [])) != _SWAP_HEADS:
            return None
        inner = transpose.inputs[0]
        assert inner is not None
        split = inner
    reshape = split.producer()
    if reshape is None or reshape.op_type != "Reshape":
        return None
    joined = reshape.inputs[0]
    before, after = dimensions(joined), dimensions(split)
    if before is None or after is None or len(before) != 3 or len(after) != 4:
        return None
    fits = before[:2] == after[:2] == (BATCH, SEQUENCE) and after[2] == heads
    return joined if fits else None


def _is_bias(mask: ir.Value, heads: int) -> bool:
    """Whether the operator takes a mask of this shape: only the first two axes broadcast."""
    sizes = dimensions(mask)
    if sizes is None or len(sizes) != 4:
        return False
    return sizes[0] in (1, BATCH) and sizes[1] in (1, heads) and sizes[2:] == (SEQUENCE, SEQUENCE)


class _ComposedAttention(SDPA):
    """Of MatMul, mask, Softmax and MatMul: what torch exports before opset 23."""

    def pattern(
        self,
        op: Any,
        query: Any,
        key: Any,
        value: Any,
        mask: Any,
        query_scale: Any,
        key_scale: Any,
        qk_scale: Any,
    ) -> Any:
        heads = super().pattern(op, query, key, value, mask, query_scale, key_scale, qk_scale)
        return op.Reshape(
            op.Transpose(heads, perm=_SWAP_HEADS), pattern.ANY_VALUE, _outputs=["joined"]
        )

    def check(
        self,
        context: Any,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        mask: ir.Value | None,
        key_format: str,
        joined: ir.Value,
        **bindings: Any,
    ) -> Any:
        result = super().check(context, query, key, value, mask, key_format, **bindings)
        if not result:
            return result
        self._heads = _Heads.split_from(query, key, value, key_swapped=key_format == "BHSd")
        if self._heads is None:
            return result.fail("query, key or value are not split into heads")
        if mask is not None and not _is_bias(mask, self._heads.heads):
            return result.fail("the mask has another shape", mask)
        return result

    def rewrite(self, op: Any, mask: ir.Value | None = None, **_: Any) -> Any:
        assert self._heads is not None
        return self._heads.attend(op, mask, self._scale)


class _StandardAttention(pattern.RewriteRuleClassBase):
    """The operator of opset 23, with a boolean mask."""

    def setup(self) -> None:
        self._biases: dict[ir.Value, ir.Value] = {}

    def pattern(self, op: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
        heads = op.Attention(
            query, key, value, mask, _allow_other_attributes=True, _outputs=["attended"]
        )
        return op.Reshape(op.Transpose(heads, perm=_SWAP_HEADS), pattern.ANY_VALUE)

    def check(
        self,
        context: Any,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        mask: ir.Value,
        attended: ir.Value,
        **_: Any,
    ) -> Any:
        result = pattern.MatchResult()
        node = attended.producer()
        assert node is not None
        for name in ("is_causal", "softcap", "qk_matmul_output_mode", "softmax_precision"):
            if name in node.attributes and node.attributes[name].value:
                return result.fail(f"{name} is set", node)
        self._heads = _Heads.split_from(query, key, value, key_swapped=True)
        if self._heads is None:
            return result.fail("query, key or value are not split into heads")
        if mask.dtype != ir.DataType.BOOL or not _is_bias(mask, self._heads.heads):
            return result.fail("the mask has another shape or type", mask)
        self._scale = node.attributes.get_float("scale", None)
        return result

    def rewrite(self, op: Any, mask: ir.Value, **_: Any) -> Any:
        assert self._heads is not None
        if mask not in self._biases:  # the same for all layers
            kept = op.Constant(value=ir.tensor(np.array(0, np.float32)))
            hidden = op.Constant(value=ir.tensor(np.array(np.finfo(np.float32).min)))
            self._biases[mask] = op.Where(mask, kept, hidden)
        return self._heads.attend(op, self._biases[mask], self._scale)
