"""Weights stored small: initializers replaced by an encoding and a subgraph that decodes it.

The operators are ONNX's own. Their inputs are constants, so ONNX Runtime computes them once, when
a session opens, and keeps the plain weights: latency is that of the dense model. Since version
1.27 it does so only for outputs whose shape is known beforehand, so the shape of every value is
written into the graph. DequantizeLinear is never folded, and Cast and Mul stand for it.

    bits         BitwiseAnd(bytes, planes) -> Cast -> Reshape -> mask
    bitmap       Compress(Range, mask) -> positions
    gaps         CumSum(gaps) -> positions
    rice         Compress(Range in steps of 2 ** width, mask) -> multiples of the ones' positions
                 BitShift, BitwiseAnd, Reshape -> remainders
                 Sub(multiples, CumSum(remainders)) -> positions, the remainders being inverted
    int8         Mul(values, GatherElements(scales, Mod(positions, columns)))
    all of them  ScatterElements(zeros, positions, values) -> Reshape

Everything that folding computes stays in memory until all is folded: what counts for loading is
how much these operators write, so zeros and ranges are shared between matrices. Tried and slower,
or much larger in memory: a table of the bits of every byte, NonZero, MaxUnpool (which also aborts
the process on a wrong position in ONNX Runtime 1.22), a running count with GatherElements.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.encodings import Bitmap, Dense, Encoding, Gaps, Rice, encode, encode_dense
from export.quantise import Values, round_weights
from pipeline.errors import ModelError

__all__ = ["EncodeWeights"]

_PREFIX = "smp"
_LARGEST_INT32 = 2**31 - 1


class EncodeWeights(ir.passes.InPlacePass):
    """Replace float32 initializers by what stores them, and its decoder.

    Args:
        names: the initializers, float32 [in_features, out_features].
        values: the type of the stored values; int8 has a scale for every output feature.
        packed: store each in the smallest encoding; otherwise with all zeros.

    Attributes:
        encodings: after the pass: initializer -> ``dense``, ``bitmap``, ``gaps`` or ``rice``.
        stored: after the pass, for those that are dense: initializer -> the initializer with its
            values, which is itself where nothing needs to be decoded.
    """

    def __init__(self, names: Collection[str], values: Values, *, packed: bool) -> None:
        super().__init__()
        self._names = tuple(names)
        self._values = values
        self._packed = packed
        self.encodings: dict[str, str] = {}
        self.stored: dict[str, str] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Encode the weights in place; nodes are put first, so the order stays topological.

        Raises:
            ModelError: a weight is not finite, or too large for float16.
        """
        graph = model.graph
        encoded = {name: self._encode(graph.initializers[name]) for name in self._names}
        builder = _Builder(graph, [encoding for encoding, _ in encoded.values()])
        modified = False
        for name, (encoding, scales) in encoded.items():
            self.encodings[name] = encoding.kind
            if isinstance(encoding, Dense):
                plain = self._values == "fp32"
                self.stored[name] = name if plain else f"{name}.values"
                if plain:
                    continue
            value = graph.initializers.pop(name)
            value.name = None  # the decoder's result takes the name over
            value.replace_all_uses_with(builder.decode(name, encoding, scales))
            modified = True
        builder.finish()
        return ir.passes.PassResult(model, modified)

    def _encode(self, weight: ir.Value) -> tuple[Encoding, NDArray[np.float32] | None]:
        assert weight.const_value is not None
        try:
            stored, scales = round_weights(weight.const_value.numpy().T, self._values)
        except ModelError as error:
            raise ModelError(f"{weight.name} cannot be stored: {error}") from error
        stored = stored.T.copy()  # row-major again
        return (encode(stored) if self._packed else encode_dense(stored)), scales


class _Builder:
    """Collects decoder nodes and the constants that decoders share.

    Args:
        graph: the graph.
        encodings: all that will be decoded.
    """

    def __init__(self, graph: ir.Graph, encodings: Sequence[Encoding]) -> None:
        self._graph = graph
        self._nodes: list[ir.Node] = []
        self._shared: dict[str, ir.Value] = {}
        # Of the masks with each width of remainders (a bitmap has none), the most bits.
        self._longest: dict[int, int] = {}
        for encoding in encodings:
            if isinstance(encoding, Bitmap | Rice):
                width, octets = _mask_of(encoding)
                self._longest[width] = max(self._longest.get(width, 0), 8 * octets.size)
        largest = [bits << width for width, bits in self._longest.items()]
        largest += [int(np.prod(encoding.shape, dtype=object)) for encoding in encodings]
        small = max(largest, default=0) <= _LARGEST_INT32
        self._index = ir.DataType.INT32 if small else ir.DataType.INT64

    def finish(self) -> None:
        first = next(iter(self._graph), None)
        if first is None:
            self._graph.extend(self._nodes)
        else:
            self._graph.insert_before(first, self._nodes)

    def decode(self, name: str, encoding: Encoding, scales: NDArray[np.float32] | None) -> ir.Value:
        """Nodes that rebuild a matrix; the result is float32, named ``name``."""
        factors = None if scales is None else self._constant(f"{name}.scales", scales)
        if not isinstance(encoding, Dense):
            return self._reshape(self._scatter(name, encoding, factors), name, encoding.shape)
        stored = self._constant(f"{name}.values", encoding.values.reshape(encoding.shape))
        unscaled = name if factors is None else f"{name}.unscaled"
        matrix = self._cast(stored, unscaled, ir.DataType.FLOAT)
        if factors is None:
            return matrix
        return self._node("Mul", [matrix, factors], name, encoding.shape, ir.DataType.FLOAT)

    def _scatter(
        self, name: str, encoding: Bitmap | Gaps | Rice, scales: ir.Value | None
    ) -> ir.Value:
        """The values, scaled, among zeros: float32 [size]."""
        size = int(np.prod(encoding.shape))
        values = self._constant(f"{name}.values", encoding.values)
        if values.dtype != ir.DataType.FLOAT:
            values = self._cast(values, f"{name}.float", ir.DataType.FLOAT)
        if isinstance(encoding, Gaps):
            gaps = self._constant(f"{name}.gaps", encoding.gaps)
            positions = self._running_sum(
                self._cast(gaps, f"{name}.steps", self._index), f"{name}.positions"
            )
        elif isinstance(encoding, Bitmap):
            positions = self._ones(name, encoding, f"{name}.positions")
        else:
            multiples = self._ones(name, encoding, f"{name}.multiples")
            remainders = self._remainders(name, encoding)
            sums = self._running_sum(
                self._cast(remainders, f"{name}.steps", self._index), f"{name}.sums"
            )
            count = encoding.values.size
            positions = self._node(
                "Sub", [multiples, sums], f"{name}.positions", [count], self._index
            )
        if scales is not None:
            values = self._scaled(name, values, positions, scales, encoding.shape[1])
        return self._node(
            "ScatterElements",
            [self._zeros(size), positions, values],
            f"{name}.flat",
            [size],
            ir.DataType.FLOAT,
            axis=0,
        )

    def _scaled(
        self, name: str, values: ir.Value, positions: ir.Value, scales: ir.Value, columns: int
    ) -> ir.Value:
        """The values times the scale of their column; scaling the matrix would write all of it."""
        count = _shape_of(values)
        divisor = self._share(f"{_PREFIX}.columns.{columns}", self._array(columns))
        column = self._node("Mod", [positions, divisor], f"{name}.columns", count, self._index)
        factors = self._node(
            "GatherElements",
            [scales, column],
            f"{name}.factors",
            count,
            ir.DataType.FLOAT,
            axis=0,
        )
        return self._node("Mul", [values, factors], f"{name}.scaled", count, ir.DataType.FLOAT)

    def _ones(self, name: str, encoding: Bitmap | Rice, result: str) -> ir.Value:
        """Where the ones of a bit mask are, times ``2 ** width``, plus ``2 ** width - 1``."""
        width, octets = _mask_of(encoding)
        planes = self._share(f"{_PREFIX}.planes", np.uint8(1) << _shifts(1))
        stored = self._constant(f"{name}.bits", octets[None, :])
        shape = [8, octets.size]
        bits = self._node(
            "BitwiseAnd", [stored, planes], f"{name}.planes", shape, ir.DataType.UINT8
        )
        mask = self._flatten(self._cast(bits, f"{name}.mask", ir.DataType.BOOL))
        # The condition may be shorter than what is compressed: one range serves all matrices.
        count = encoding.values.size
        return self._node("Compress", [self._range(width), mask], result, [count], self._index)

    def _remainders(self, name: str, encoding: Rice) -> ir.Value:
        """The inverted remainders of a Rice code, uint8 [count]."""
        width, count = encoding.width, encoding.values.size
        stored = self._constant(f"{name}.remainders", encoding.remainders[None, :])
        shifts = self._share(f"{_PREFIX}.shifts.{width}", _shifts(width))
        shape = [8 // width, encoding.remainders.size]
        shifted = self._node(
            "BitShift",
            [stored, shifts],
            f"{name}.shifted",
            shape,
            ir.DataType.UINT8,
            direction="RIGHT",
        )
        low = self._share(f"{_PREFIX}.low.{width}", np.array((1 << width) - 1, np.uint8))
        fields = self._flatten(
            self._node("BitwiseAnd", [shifted, low], f"{name}.fields", shape, ir.DataType.UINT8)
        )
        if shape[0] * shape[1] == count:
            return fields
        start = self._share(f"{_PREFIX}.start", np.zeros(1, np.int64))
        end = self._constant(f"{name}.count", np.array([count], np.int64))
        return self._node("Slice", [fields, start, end], f"{name}.kept", [count], ir.DataType.UINT8)

    def _range(self, width: int) -> ir.Value:
        """``2 ** width`` minus 1, and on in steps of ``2 ** width``, for the longest mask."""
        name = f"{_PREFIX}.range.{width}"
        if name not in self._shared:
            count, step = self._longest[width], 1 << width
            bounds = {"start": step - 1, "limit": count * step, "step": step}
            inputs = [
                self._share(f"{name}.{role}", self._array(bound)) for role, bound in bounds.items()
            ]
            self._shared[name] = self._node("Range", inputs, name, [count], self._index)
        return self._shared[name]

    def _zeros(self, size: int) -> ir.Value:
        """float32 [size], one node for all matrices of that size."""
        name = f"{_PREFIX}.zeros.{size}"
        if name not in self._shared:
            self._shared[name] = self._node(
                "ConstantOfShape",
                [self._share(f"{_PREFIX}.size.{size}", np.array([size], np.int64))],
                name,
                [size],
                ir.DataType.FLOAT,
                value=ir.tensor(np.zeros(1, np.float32)),
            )
        return self._shared[name]

    def _running_sum(self, value: ir.Value, name: str) -> ir.Value:
        axis = self._share(f"{_PREFIX}.axis", np.array(0, np.int64))
        return self._node("CumSum", [value, axis], name, _shape_of(value), self._index)

    def _cast(self, value: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
        return self._node("Cast", [value], name, _shape_of(value), dtype, to=dtype.value)

    def _flatten(self, value: ir.Value) -> ir.Value:
        return self._reshape(value, f"{value.name}.flat", [int(np.prod(_shape_of(value)))])

    def _reshape(self, value: ir.Value, name: str, shape: Sequence[int]) -> ir.Value:
        extents = "x".join(str(extent) for extent in shape)
        target = self._share(f"{_PREFIX}.shape.{extents}", np.array(shape, np.int64))
        assert value.dtype is not None
        return self._node("Reshape", [value, target], name, shape, value.dtype)

    def _array(self, number: int) -> NDArray[np.generic]:
        return np.array(number, self._index.numpy())

    def _share(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        if name not in self._shared:
            self._shared[name] = self._constant(name, array)
        return self._shared[name]

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value

    def _node(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        name: str,
        shape: Sequence[int],
        dtype: ir.DataType,
        **attributes: int | str | ir.TensorProtocol,
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes=attributes, name=f"{name}/{operator}")
        (output,) = node.outputs
        output.name = name
        output.shape = ir.Shape(shape)
        output.type = ir.TensorType(dtype)
        self._nodes.append(node)
        return output


def _mask_of(encoding: Bitmap | Rice) -> tuple[int, NDArray[np.uint8]]:
    """The width of the remainders that go with a bit mask, and its bytes."""
    if isinstance(encoding, Bitmap):
        return 0, encoding.bits
    return encoding.width, encoding.quotients


def _shifts(width: int) -> NDArray[np.uint8]:
    """Where the fields of a byte begin, uint8 [8 / width, 1]."""
    return np.arange(0, 8, width, dtype=np.uint8)[:, None]


def _shape_of(value: ir.Value) -> list[int]:
    assert value.shape is not None
    return [int(extent) for extent in value.shape.numpy()]
