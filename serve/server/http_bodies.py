"""What the JSON bodies of HTTP requests and answers look like.

Source: the Open Inference Protocol over HTTP, and Triton's extensions of it for binary tensors and
for the model repository. Metadata and the repository's index are in :mod:`serve.server.protocol`.
"""

from typing import Annotated, Any

import msgspec

from serve.server.protocol import DTYPES, MAX_TENSORS

__all__ = [
    "DATATYPES",
    "JsonError",
    "JsonInferRequest",
    "JsonInferResponse",
    "JsonInput",
    "JsonLive",
    "JsonModelReady",
    "JsonOutput",
    "JsonReady",
    "JsonRepositoryRequest",
]

DATATYPES = ("BYTES", *DTYPES)

# What is decoded further on; msgspec checks the rest.
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Shape = Annotated[list[_Size], msgspec.Meta(max_length=32)]  # numpy's limit before 2.0
_Datatype = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(DATATYPES)})]
_Data = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array"})]


class JsonInputParameters(msgspec.Struct, gc=False):
    """Parameters of an input; others are ignored."""

    binary_data_size: _Size | None = None
    shared_memory_region: str | None = None


class JsonInput(msgspec.Struct):
    """An input tensor: its data is here, flat or nested, or follows the JSON as binary data."""

    name: str
    datatype: _Datatype
    shape: _Shape
    parameters: JsonInputParameters | None = None
    data: _Data = msgspec.field(default_factory=msgspec.Raw)


class JsonOutputParameters(msgspec.Struct, gc=False):
    """Parameters of an output that is asked for; others are ignored."""

    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class JsonRequestedOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: JsonOutputParameters | None = None


class JsonRequestParameters(msgspec.Struct, gc=False):
    """Parameters of a request; others are ignored."""

    binary_data_output: bool = False


class JsonInferRequest(msgspec.Struct):
    """An inference request."""

    inputs: Annotated[list[JsonInput], msgspec.Meta(min_length=1, max_length=MAX_TENSORS)]
    outputs: Annotated[list[JsonRequestedOutput], msgspec.Meta(max_length=MAX_TENSORS)] = []
    id: str = ""
    parameters: JsonRequestParameters | None = None


class JsonOutput(msgspec.Struct, omit_defaults=True):
    """An output tensor: its data is here, flat, or follows the JSON as binary data."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


class JsonInferResponse(msgspec.Struct, omit_defaults=True):
    """An answer to an inference request."""

    model_name: str
    model_version: str
    outputs: list[JsonOutput]
    id: str = ""


class JsonLive(msgspec.Struct):
    """Whether the process works."""

    live: bool


class JsonReady(msgspec.Struct):
    """Whether all models of the command line are loaded, and the server is not shutting down."""

    ready: bool


class JsonModelReady(msgspec.Struct):
    """Whether a model answers."""

    name: str
    ready: bool


class JsonRepositoryRequest(msgspec.Struct):
    """A request to the repository; the body may be empty instead."""

    ready: bool = False
    parameters: dict[str, Any] = {}


class JsonError(msgspec.Struct):
    """Why a request is not answered."""

    error: str
