"""The packed format: initializers replaced by an encoding and a subgraph that decodes it.

The operators are ONNX's own. Their inputs are constants, so ONNX Runtime computes them once, when
a session opens, and keeps the plain weights: latency is that of the dense model. Since version
1.27 it does so only for outputs whose shape is known beforehand, so the shape of every value is
written into the graph.

    gaps     CumSum(gaps) -> positions
    bitmap   Compress(Range(size), table[bits]) -> positions, the table having 256 rows of 8 bits
    both     ScatterElements(zeros, positions, values) -> Reshape

Compress over a table was the fastest to load of the bitmap decoders tried (shifts and masks,
NonZero, a running count with Gather); docs/export.md has figures.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.encodings import Bitmap, Dense, Encoding, Gaps, encode

__all__ = ["PackInitializers"]

_PREFIX = "smp"


class PackInitializers(ir.passes.InPlacePass):
    """Replace float32 initializers by their smallest encoding and its decoder.

    Args:
        names: the initializers.
        dtype: numpy dtype of the stored values, float16 or float32.

    Attributes:
        encodings: after the pass: initializer -> ``dense``, ``bitmap`` or ``gaps``.
    """

    def __init__(self, names: Collection[str], dtype: type[np.float16] | type[np.float32]) -> None:
        super().__init__()
        self._names = tuple(names)
        self._dtype = dtype
        self.encodings: dict[str, str] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Pack the model in place; nodes are put first, so the order stays topological."""
        graph = model.graph
        builder = _Builder(graph)
        modified = False
        for name in self._names:
            value = graph.initializers[name]
            assert value.const_value is not None
            encoding = encode(value.const_value.numpy(), self._dtype)
            self.encodings[name] = encoding.kind
            if isinstance(encoding, Dense) and self._dtype is np.float32:
                continue
            graph.initializers.pop(name)
            value.name = None  # the decoder's result takes the name over
            decoded = builder.decode(name, encoding)
            value.replace_all_uses_with(decoded)
            modified = True
        builder.finish()
        return ir.passes.PassResult(model, modified)


class _Builder:
    """Collects decoder nodes and the constants that decoders share."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes: list[ir.Node] = []
        self._shared: dict[str, ir.Value] = {}

    def finish(self) -> None:
        first = next(iter(self._graph), None)
        if first is None:
            self._graph.extend(self._nodes)
        else:
            self._graph.insert_before(first, self._nodes)

    def decode(self, name: str, encoding: Encoding) -> ir.Value:
        """Nodes that rebuild a matrix; the result is float32, named ``name``."""
        values = self._constant(f"{name}.values", encoding.values)
        if values.dtype != ir.DataType.FLOAT:
            size = encoding.values.size
            values = self._node(
                "Cast", [values], f"{name}.float", [size], to=ir.DataType.FLOAT.value
            )
        if not isinstance(encoding, Dense):
            size = int(np.prod(encoding.shape))
            positions = self._positions(name, encoding, size)
            zeros = self._node(
                "ConstantOfShape",
                [self._share(f"{_PREFIX}.size.{size}", np.array([size], np.int64))],
                f"{name}.zeros",
                [size],
                value=ir.tensor(np.zeros(1, np.float32)),
            )
            values = self._node(
                "ScatterElements", [zeros, positions, values], f"{name}.flat", [size], axis=0
            )
        rows = "x".join(str(extent) for extent in encoding.shape)
        shape = self._share(f"{_PREFIX}.shape.{rows}", np.array(encoding.shape, np.int64))
        return self._node("Reshape", [values, shape], name, encoding.shape)

    def _positions(self, name: str, encoding: Bitmap | Gaps, size: int) -> ir.Value:
        """int32 positions of the values in the flattened matrix."""
        int32 = ir.DataType.INT32
        count = encoding.values.size
        if isinstance(encoding, Gaps):
            gaps = self._constant(f"{name}.gaps", encoding.gaps)
            steps = self._node(
                "Cast", [gaps], f"{name}.steps", [count], int32, to=ir.DataType.INT32.value
            )
            axis = self._share(f"{_PREFIX}.axis", np.array(0, np.int64))
            return self._node("CumSum", [steps, axis], f"{name}.positions", [count], int32)
        bits = self._constant(f"{name}.bits", encoding.bits)
        octets = encoding.bits.size
        index = self._node(
            "Cast", [bits], f"{name}.octets", [octets], int32, to=ir.DataType.INT32.value
        )
        table = self._share(f"{_PREFIX}.bits_of_octet", _bits_of_octet())
        rows = self._node(
            "Gather", [table, index], f"{name}.bit_rows", [octets, 8], ir.DataType.BOOL, axis=0
        )
        flat = self._share(f"{_PREFIX}.flat", np.array([-1], np.int64))
        mask = self._node("Reshape", [rows, flat], f"{name}.mask", [octets * 8], ir.DataType.BOOL)
        everywhere = self._range(octets * 8)
        return self._node("Compress", [everywhere, mask], f"{name}.positions", [count], int32)

    def _range(self, size: int) -> ir.Value:
        """int32 ``0 .. size``, one node for all matrices of that size."""
        name = f"{_PREFIX}.range.{size}"
        if name not in self._shared:
            start = self._share(f"{_PREFIX}.zero", np.array(0, np.int32))
            step = self._share(f"{_PREFIX}.one", np.array(1, np.int32))
            limit = self._share(f"{_PREFIX}.limit.{size}", np.array(size, np.int32))
            self._shared[name] = self._node(
                "Range", [start, limit, step], name, [size], ir.DataType.INT32
            )
        return self._shared[name]

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
        dtype: ir.DataType = ir.DataType.FLOAT,
        **attributes: int | ir.TensorProtocol,
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes=attributes, name=f"{name}/{operator}")
        (output,) = node.outputs
        output.name = name
        output.shape = ir.Shape(shape)
        output.type = ir.TensorType(dtype)
        self._nodes.append(node)
        return output


def _bits_of_octet() -> NDArray[np.bool_]:
    """The bits of every byte, bool [256, 8], highest first."""
    return np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.bool_)
