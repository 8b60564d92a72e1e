"""Why a request is not answered, with the status that HTTP and gRPC clients get for it.

    RequestError
    ├── InvalidRequest     400  INVALID_ARGUMENT     the request says something that cannot be
    ├── Unauthenticated    401  UNAUTHENTICATED      no bearer token, or a wrong one
    ├── NotFound           404  NOT_FOUND            no such model, version or path
    ├── TooLarge           413  INVALID_ARGUMENT     longer than the server's limits
    ├── Overloaded         429  RESOURCE_EXHAUSTED   the queue is full; come back later
    ├── InferenceFailed    500  INTERNAL             ONNX Runtime could not run the model
    ├── Unavailable        503  UNAVAILABLE          loading, failed to load, or shutting down
    └── TimedOut           504  DEADLINE_EXCEEDED    not done within the time allowed

A message names what was wrong, what was expected, and what to do; it is sent to the client, and so
it holds no path of the server's machine.
"""

from typing import ClassVar

__all__ = [
    "InferenceFailed",
    "InvalidRequest",
    "NotFound",
    "Overloaded",
    "RequestError",
    "TimedOut",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
]


class RequestError(Exception):
    """Base of all errors that end a request.

    Attributes:
        http_status: the HTTP status code.
        grpc_status: the name of the gRPC status, a member of ``grpc.StatusCode``.
        retry_after_s: whole seconds after which trying again makes sense; None where it does not.
    """

    http_status: ClassVar[int]
    grpc_status: ClassVar[str]

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidRequest(RequestError):
    """The request says something that cannot be: a wrong name, type, shape or value."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class Unauthenticated(RequestError):
    """The request has no bearer token, or a wrong one."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class NotFound(RequestError):
    """There is no model, version or path of this name."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class TooLarge(RequestError):
    """The request is beyond one of the server's limits."""

    http_status = 413
    grpc_status = "INVALID_ARGUMENT"


class Overloaded(RequestError):
    """The queue is full."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class InferenceFailed(RequestError):
    """ONNX Runtime could not run the model on this input."""

    http_status = 500
    grpc_status = "INTERNAL"


class Unavailable(RequestError):
    """The model is loading or failed to load, or the server is shutting down."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class TimedOut(RequestError):
    """The request was not answered within the time allowed."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"
