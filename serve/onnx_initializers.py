"""Where an ONNX file keeps its weights, and what reads them, without the onnx package.

A strict walk over protobuf's wire format that reads names and skips data. Files are untrusted:
every length is checked against what surrounds it before anything is read by it, and each byte is
looked at no more than once. Messages nest as deep as this module goes into them, never deeper.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from pipeline.errors import ArtifactError

__all__ = ["Consumer", "Initializer", "read_initializers"]

# ONNX's number of an element type -> numpy's name; those of whole bytes that numpy has.
_ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_FIELD = 2**29 - 1
_LARGEST_SIZE = 2**63 - 1
_LARGEST_RANK = 64
_LONGEST_NAME = 1 << 16
# The fields of onnx.proto that are read.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 4, 5, 7
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VALUE_NAME = 1
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


class Consumer(NamedTuple):
    """One input of one node.

    Attributes:
        domain: of the node's operator; empty for ONNX's own.
        op_type: the operator.
        position: which of its inputs.
    """

    domain: str
    op_type: str
    position: int


@dataclass(frozen=True)
class Initializer:
    """Weights that lie in a file as they lie in memory, little endian.

    Attributes:
        name: unique in the graph.
        element_type: as numpy calls it.
        dims: its shape.
        file: name of the second file that holds the bytes; None if it is the model's own.
        offset: of the first byte in that file.
        size_bytes: the shape's, and what the file has.
        consumers: every node that reads it.
    """

    name: str
    element_type: str
    dims: tuple[int, ...]
    file: str | None
    offset: int
    size_bytes: int
    consumers: tuple[Consumer, ...]


class _Span(NamedTuple):
    """A part of the file: [start, end)."""

    start: int
    end: int


class _Field(NamedTuple):
    number: int
    wire_type: int
    value: int  # of a varint
    span: _Span  # of bytes


def read_initializers(path: Path, *, min_bytes: int = 0) -> list[Initializer]:
    """The initializers of a model's main graph that a program may hand to its runtime itself.

    Left out are those that are small, of types without whole bytes, stored in typed fields instead
    of raw bytes, not constant (graph inputs), or given twice; and, as what reads them is then hard
    to say, all of a graph with subgraphs.

    Args:
        path: an ONNX file; a second file that it names is not opened.
        min_bytes: the size of the smallest.

    Raises:
        ArtifactError: the file is no ONNX model, or damaged.
    """
    with path.open("rb") as file:
        return _Walk(path, file).initializers(min_bytes)


class _Walk:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._end = file.seek(0, 2)

    def initializers(self, min_bytes: int) -> list[Initializer]:
        consumers: dict[str, list[Consumer]] = {}
        variable: set[str] = set()
        tensors: list[tuple[str, _Span]] = []
        graphs = 0
        for model_field in self._fields(_Span(0, self._end)):
            if model_field.number != _MODEL_GRAPH:
                continue
            graphs += 1  # protobuf merges the parts of a message that is given twice
            for field in self._fields(self._message(model_field)):
                if field.number == _GRAPH_NODE:
                    if not self._read_node(self._message(field), consumers):
                        return []
                elif field.number == _GRAPH_INITIALIZER:
                    span = self._message(field)
                    tensors.append((self._name(span, _TENSOR_NAME), span))
                elif field.number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                    variable.add(self._name(self._message(field), _VALUE_NAME))
        if graphs == 0:
            raise self._damaged("it has no graph")
        times = Counter(name for name, _ in tensors)
        found = []
        for name, span in tensors:
            tensor = self._read_tensor(name, span, tuple(consumers.get(name, ())))
            if (
                tensor is not None
                and tensor.size_bytes >= min_bytes
                and times[name] == 1
                and name not in variable
            ):
                found.append(tensor)
        return found

    def _read_node(self, node: _Span, consumers: dict[str, list[Consumer]]) -> bool:
        """Note what a node reads; False if it has a subgraph."""
        inputs: list[str] = []
        op_type = domain = ""
        for field in self._fields(node):
            if field.number == _NODE_INPUT:
                inputs.append(self._text(field))
            elif field.number == _NODE_OP_TYPE:
                op_type = self._text(field)
            elif field.number == _NODE_DOMAIN:
                domain = self._text(field)
            elif field.number == _NODE_ATTRIBUTE:
                for part in self._fields(self._message(field)):
                    if part.number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        return False
        for position, name in enumerate(inputs):
            consumer = Consumer("" if domain == "ai.onnx" else domain, op_type, position)
            consumers.setdefault(name, []).append(consumer)
        return True

    def _read_tensor(
        self, name: str, tensor: _Span, consumers: tuple[Consumer, ...]
    ) -> Initializer | None:
        dims: list[int] = []
        element_type = location = 0
        raw: _Span | None = None
        external: dict[str, str] = {}
        for field in self._fields(tensor):
            if field.number == _TENSOR_DIMS:
                dims += self._numbers(field)
                if len(dims) > _LARGEST_RANK:
                    raise self._damaged(f"{name} has more than {_LARGEST_RANK} dimensions")
            elif field.number == _TENSOR_TYPE:
                element_type = self._number(field)
            elif field.number == _TENSOR_RAW:
                raw = self._message(field)
            elif field.number == _TENSOR_LOCATION:
                location = self._number(field)
            elif field.number == _TENSOR_EXTERNAL:
                key, value = self._entry(self._message(field))
                external[key] = value
        if element_type not in _ELEMENT_TYPES or any(dim > _LARGEST_SIZE for dim in dims):
            return None
        numpy_name = _ELEMENT_TYPES[element_type]
        size_bytes = math.prod(dims) * np.dtype(numpy_name).itemsize
        if location == 1:
            file = external.get("location", "")
            offset = self._decimal(name, external.get("offset", "0"))
            length = self._decimal(name, external.get("length", str(size_bytes)))
        elif raw is not None:
            file = None
            offset, length = raw.start, raw.end - raw.start
        else:
            return None
        if length != size_bytes:
            raise self._damaged(f"{name} has {length} bytes, its shape {dims} needs {size_bytes}")
        return Initializer(name, numpy_name, tuple(dims), file, offset, size_bytes, consumers)

    def _entry(self, span: _Span) -> tuple[str, str]:
        key = value = ""
        for field in self._fields(span):
            if field.number == _ENTRY_KEY:
                key = self._text(field)
            elif field.number == _ENTRY_VALUE:
                value = self._text(field)
        return key, value

    def _name(self, span: _Span, number: int) -> str:
        name = ""
        for field in self._fields(span):
            if field.number == number:
                name = self._text(field)
        return name

    def _decimal(self, name: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise self._damaged(f"{name} lies at {text[:40]!r} of a second file")
        return int(text)

    def _fields(self, span: _Span) -> Iterator[_Field]:
        at, end = span
        while at < end:
            tag, at = self._varint(at, end)
            number, wire_type = tag >> 3, tag & 7
            value, content = 0, _Span(at, at)
            if not 0 < number <= _LARGEST_FIELD:
                raise self._damaged(f"there is no field {number}")
            if wire_type == _VARINT:
                value, at = self._varint(at, end)
            elif wire_type in (_FIXED64, _FIXED32, _BYTES):
                size = 8 if wire_type == _FIXED64 else 4
                if wire_type == _BYTES:
                    size, at = self._varint(at, end)
                if size > end - at:
                    raise self._damaged(f"{size} bytes are announced where {end - at} are left")
                content = _Span(at, at + size)
                at += size
            else:
                raise self._damaged(f"there is no wire type {wire_type}")
            yield _Field(number, wire_type, value, content)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at a position, and the position after it."""
        self._file.seek(at)
        encoded = self._file.read(min(10, end - at))
        number = 0
        for index, byte in enumerate(encoded):
            number |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if number >= 2**64:
                    break
                return number, at + index + 1
        raise self._damaged("a number does not end")

    def _numbers(self, field: _Field) -> list[int]:
        """Of a repeated field: one number, or some in a row; one too many is enough."""
        if field.wire_type != _BYTES:
            return [self._number(field)]
        numbers: list[int] = []
        at, end = field.span
        while at < end and len(numbers) <= _LARGEST_RANK:
            number, at = self._varint(at, end)
            numbers.append(number)
        return numbers

    def _number(self, field: _Field) -> int:
        if field.wire_type != _VARINT:
            raise self._damaged(f"field {field.number} is no number")
        return field.value

    def _message(self, field: _Field) -> _Span:
        if field.wire_type != _BYTES:
            raise self._damaged(f"field {field.number} is no message")
        return field.span

    def _text(self, field: _Field) -> str:
        start, end = self._message(field)
        if end - start > _LONGEST_NAME:
            raise self._damaged(f"a name has {end - start} bytes")
        self._file.seek(start)
        text = self._file.read(end - start)
        try:
            if len(text) == end - start:
                return text.decode()
        except UnicodeDecodeError:
            pass
        raise self._damaged("a name is no text")

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self._path} is no ONNX model, or damaged: {what}; export the model again"
        )
