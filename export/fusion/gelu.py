"""GELU with the bias of the linear layer before as one operator: BiasGelu, FastGelu for tanh."""

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern
from onnxscript.rewriter.ort_fusions import bias_gelu, erfgelu
from onnxscript.rewriter.ort_fusions import gelu as tanh_gelu

__all__ = ["fuse_gelu"]


def fuse_gelu(model: ir.Model) -> int:
    """Replace GELU by com.microsoft BiasGelu, FastGelu or (without a bias) Gelu.

    Args:
        model: the model.

    Returns:
        How many were put in.
    """
    # Opset 18 has no Gelu: first what it is made of, then the bias.
    erfgelu.fuse_erfgelu(model)
    tanh_gelu.fuse_gelu(model)
    bias_gelu.fuse_bias_gelu(model)
    pattern.RewriteRuleSet([_TanhGelu.rule(), *_BiasFastGelu.rule().commute()]).apply_to_model(
        model
    )
    return sum(
        node.domain == "com.microsoft" and node.op_type in ("BiasGelu", "FastGelu", "Gelu")
        for node in model.graph
    )


class _TanhGelu(pattern.RewriteRuleClassBase):
    """The standard operator in its tanh form."""

    def pattern(self, op: Any, value: Any) -> Any:
        return op.Gelu(value, approximate="tanh")

    def rewrite(self, op: Any, value: ir.Value) -> Any:
        return op.FastGelu(value, _domain="com.microsoft")


class _BiasFastGelu(pattern.RewriteRuleClassBase):
    """FastGelu after the sum with a bias."""

    def pattern(self, op: Any, value: Any, bias: Any) -> Any:
        return op.FastGelu(op.Add(value, bias), _domain="com.microsoft")

    def check(self, context: Any, value: ir.Value, bias: ir.Value) -> Any:
        result = pattern.MatchResult()
        if bias.shape is None or len(bias.shape) != 1 or bias.const_value is None:
            return result.fail("not a bias", bias)
        return result

    def rewrite(self, op: Any, value: ir.Value, bias: ir.Value) -> Any:
        return op.FastGelu(value, bias, _domain="com.microsoft")
