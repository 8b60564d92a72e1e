"""The Open Inference Protocol, version 2: its messages, free of HTTP and gRPC.

Source: the Open Inference Protocol (kserve/open-inference-protocol) and, for the repository's
index, load and unload, Triton's model repository extension of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DTYPES",
    "MAX_TENSORS",
    "IndexEntry",
    "InferRequest",
    "InferResponse",
    "ModelMetadata",
    "ServerMetadata",
    "Tensor",
    "TensorMetadata",
]

# Datatype of the protocol -> numpy's, for all but BYTES.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}

# Inputs, and outputs asked for, of one request: more than any model has. Reading a message full of
# them would take seconds, in which nobody else is answered.
MAX_TENSORS = 16


@dataclass(frozen=True)
class Tensor:
    """One input or output of a request.

    Attributes:
        name: the tensor's name.
        datatype: a key of :data:`DTYPES`, or ``BYTES``.
        shape: its dimensions.
        data: for BYTES the texts in row-major order (UTF-8 is decoded where the request is read);
            otherwise an array of the shape and of the datatype's dtype.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[str] | NDArray[Any]


@dataclass(frozen=True)
class InferRequest:
    """One call of a model.

    Attributes:
        model: the model's name.
        version: the version asked for; empty for whichever there is.
        id: the client's own id of the request; empty if it gave none.
        inputs: by name. The reader of the request refuses a name given twice.
        outputs: names of the outputs asked for; empty for the default ones.
    """

    model: str
    version: str
    id: str
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class InferResponse:
    """What a model said.

    Attributes:
        model: the model's name.
        version: its version.
        id: the request's.
        outputs: in the order in which they were asked for.
    """

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output that a model has; -1 in the shape stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """What a model takes and gives.

    Attributes:
        name: the model's name.
        versions: all that can be asked for.
        platform: what runs it.
        inputs: text or token inputs; docs/serve.md says which go together.
        outputs: all that can be asked for.
        parameters: facts beyond the protocol (labels, density, format, bytes), JSON values.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerMetadata:
    """The server's name, version and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class IndexEntry:
    """A model in the repository's index.

    Attributes:
        name: the model's name.
        version: its version; empty while no version is loaded.
        state: as Triton names them.
        reason: why it is in this state; empty where there is nothing to say. After a failed
            reload the former model is still READY, and the reason says what failed.
    """

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str = ""
