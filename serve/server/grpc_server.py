"""The gRPC front: the Open Inference Protocol's service and the standard health service."""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2 as messages

from pipeline.config import ServeConfig
from pipeline.errors import ConfigurationError
from serve.server.auth import check_token
from serve.server.errors import (
    InvalidRequest,
    NotFound,
    RequestError,
    TimedOut,
    Unavailable,
)
from serve.server.grpc_codec import (
    read_infer_request,
    write_index,
    write_infer_response,
    write_model_metadata,
    write_server_metadata,
)
from serve.server.logs import LOGGER, log
from serve.server.request_ids import check_request_id, new_request_id
from serve.server.service import Service
from serve.server.tls import tls_context

__all__ = ["GrpcServer"]

# Clients take 8 KiB of metadata, which the message of an error is part of.
_MAX_DETAILS = 500

# What is logged in any case, as HTTP's statuses from 500 on are.
_FAILURES = ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED")

# When it stops, gRPC cancels calls that have arrived and not begun, and clients take CANCELLED for
# an answer. So for so long calls are still taken, held, and then told to go elsewhere.
_FAREWELL_S = 0.1


class _Call:
    """One call.

    Attributes:
        deadline: when it must be answered, as ``time.perf_counter`` counts.
        model: the name of the model, once it is sure that there is one; a label of the metrics.
    """

    __slots__ = ("deadline", "model")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.model = ""

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - time.perf_counter())


_Method = Callable[[Any, _Call], Awaitable[Any]]


class GrpcServer:
    """Listens for gRPC on ``--host`` and ``--grpc-port``.

    Args:
        service: what answers.
        token: the bearer token that calls must bring; None where they need none.
    """

    def __init__(self, service: Service, token: str | None) -> None:
        self._service = service
        self._config = service.config
        self._token = token
        self._server: Any = None
        self._is_stopping = False
        self._is_closed = asyncio.Event()

    async def start(self) -> int:
        """Open the port and answer.

        Returns:
            The port.

        Raises:
            ConfigurationError: the port or address cannot be had, or the certificate not be used.
        """
        inference: dict[str, _Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_model_load,
            "RepositoryModelUnload": self._repository_model_unload,
        }
        server = grpc.aio.server(
            handlers=[
                self._handlers(messages, inference, public=("ServerLive", "ServerReady")),
                self._handlers(health_pb2, {"Check": self._check}, public=("Check",)),
            ],
            options=[
                ("grpc.so_reuseport", 0),  # else a second server takes half the calls, in silence
                ("grpc.max_receive_message_length", self._config.max_request_bytes),
                ("grpc.keepalive_time_ms", 60_000),  # finds clients that vanished without a word
                ("grpc.max_allowed_incoming_connections", self._config.max_connections),
            ],
            maximum_concurrent_rpcs=self._config.max_connections,
        )
        port = _bind(server, self._config)
        await server.start()
        self._server = server
        return port

    async def stop(self, timeout_s: float) -> None:
        """Accept no more, and finish what was accepted.

        Args:
            timeout_s: seconds after which calls that still run are cancelled.
        """
        if self._server is not None:
            self._is_stopping = True
            await asyncio.sleep(_FAREWELL_S)
            stopping = asyncio.create_task(self._server.stop(timeout_s))
            await asyncio.sleep(0)
            self._is_closed.set()
            await stopping

    def _handlers(
        self, module: ModuleType, methods: Mapping[str, _Method], *, public: Collection[str]
    ) -> Any:
        """Handlers of the one service of a module of messages.

        Args:
            module: the messages.
            methods: what answers, by name; the service's other methods say that they are not there.
            public: those that need no token.
        """
        (service,) = module.DESCRIPTOR.services_by_name.values()
        handlers = {}
        for entry in service.methods:
            method = methods.get(entry.name)
            if method is None:
                behaviour = _missing(entry.name, methods)
            else:
                token = None if entry.name in public else self._token
                read = getattr(module, entry.input_type.name).FromString
                behaviour = self._behaviour(entry.name, method, read, token)
            # A unary call is a stream of one message. Taken as a stream, the time for reading it
            # can be limited; taken as bytes, what is no message gets a status of ours.
            handlers[entry.name] = grpc.stream_unary_rpc_method_handler(behaviour)
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _behaviour(
        self, name: str, method: _Method, read: Callable[[bytes], Any], token: str | None
    ) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def answer(_: Any, context: Any) -> bytes:
            start = time.perf_counter()
            given, authorization = _metadata(context)
            request_id, refusal = new_request_id(), None
            if given is not None:
                try:
                    check_request_id(given)
                    request_id = given
                except InvalidRequest as error:
                    refusal = error
            context.set_trailing_metadata((("x-request-id", request_id),))
            call = _Call(start + self._config.request_timeout_s)
            status, details, retry_after_s, encoded = "OK", "", None, b""
            try:
                if refusal is not None:
                    raise refusal
                if token is not None:
                    check_token(authorization, token)
                message = await self._read(read, context, call)
                encoded = (await method(message, call)).SerializeToString()
            except RequestError as error:
                status, details = error.grpc_status, str(error)
                retry_after_s = error.retry_after_s
            except asyncio.CancelledError:  # by grpc, when the client cancels or waits no longer
                status = "CANCELLED"
                raise
            except Exception:
                LOGGER.exception("failed", extra={"fields": {"request_id": request_id}})
                status = "INTERNAL"
                details = f"the server failed; its log says more of request {request_id}"
            finally:
                if method not in (self._check, self._server_live, self._server_ready):
                    # Probes would fill the log.
                    seconds = time.perf_counter() - start
                    self._record(name, call, request_id, status, details, seconds)
            if status != "OK":
                await _abort(context, status, details, request_id, retry_after_s)
            return encoded

        return answer

    def _record(
        self, name: str, call: _Call, request_id: str, status: str, details: str, seconds: float
    ) -> None:
        self._service.metrics.request("grpc", call.model, status, seconds)
        if self._config.log_requests or status in _FAILURES:
            fields: dict[str, object] = {
                "request_id": request_id,
                "protocol": "grpc",
                "method": name,
                "model": call.model,
                "status": status,
                "duration_ms": round(seconds * 1000.0, 3),
            }
            if details:
                fields["error"] = details[:_MAX_DETAILS]
            log(logging.ERROR if status == "INTERNAL" else logging.INFO, "request", **fields)

    async def _read(self, read: Callable[[bytes], Any], context: Any, call: _Call) -> Any:
        try:
            async with asyncio.timeout(call.remaining_s):
                data = await context.read()
        except TimeoutError as error:
            raise TimedOut("the call's message did not arrive in time") from error
        if data is grpc.aio.EOF:
            raise InvalidRequest(
                "the call has no message, or one larger than --max-request-bytes "
                f"{self._config.max_request_bytes}"
            )
        try:
            return read(data)
        except DecodeError as error:
            raise InvalidRequest(
                "the call's message is no protocol buffer of its method, or holds a string that is "
                "not UTF-8"
            ) from error

    async def _server_live(self, _: Any, __: _Call) -> Any:
        return messages.ServerLiveResponse(live=self._service.live())

    async def _server_ready(self, _: Any, __: _Call) -> Any:
        return messages.ServerReadyResponse(ready=self._service.ready())

    async def _server_metadata(self, _: Any, __: _Call) -> Any:
        return write_server_metadata(self._service.server_metadata())

    async def _model_ready(self, request: Any, _: _Call) -> Any:
        try:
            ready = self._service.model_ready(request.name, request.version)
        except NotFound:  # as Triton answers, whose clients raise at any other status
            ready = False
        return messages.ModelReadyResponse(ready=ready)

    async def _model_metadata(self, request: Any, _: _Call) -> Any:
        return write_model_metadata(self._service.model_metadata(request.name, request.version))

    async def _model_infer(self, message: Any, call: _Call) -> Any:
        if self._is_stopping:
            await self._is_closed.wait()
            raise Unavailable("the server is shutting down; ask another one")
        request = read_infer_request(message, max_texts=self._config.max_request_texts)
        call.model = request.model
        try:
            response = await self._service.infer(request, timeout_s=call.remaining_s)
        except NotFound:
            call.model = ""
            raise
        return write_infer_response(response)

    async def _repository_index(self, request: Any, _: _Call) -> Any:
        return write_index(self._service.index(ready_only=request.ready))

    async def _repository_model_load(self, request: Any, _: _Call) -> Any:
        if request.parameters:
            raise InvalidRequest(
                f"loading takes no parameter {min(request.parameters)!r}: a model is what its "
                "directory on the server says"
            )
        await self._service.load(request.model_name)
        return messages.RepositoryModelLoadResponse()

    async def _repository_model_unload(self, request: Any, _: _Call) -> Any:
        await self._service.unload(request.model_name)
        return messages.RepositoryModelUnloadResponse()

    async def _check(self, request: Any, _: _Call) -> Any:
        """Health of the server (no name, or the protocol's service), or of a model."""
        if request.service in ("", messages.DESCRIPTOR.package + ".GRPCInferenceService"):
            ready = self._service.ready()
        else:
            ready = self._service.model_ready(request.service, "")
        statuses = health_pb2.HealthCheckResponse
        return statuses(status=statuses.SERVING if ready else statuses.NOT_SERVING)


def _missing(name: str, methods: Collection[str]) -> Callable[[Any, Any], Awaitable[bytes]]:
    async def refuse(_: Any, context: Any) -> bytes:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            f"this server does not have {name}; it has {', '.join(methods)}",
        )
        raise AssertionError  # abort raises

    return refuse


async def _abort(
    context: Any, status: str, details: str, request_id: str, retry_after_s: int | None
) -> None:
    """End a call with an error, by raising grpc's own."""
    metadata = [("x-request-id", request_id)]
    if retry_after_s is not None:
        metadata.append(("retry-after", str(retry_after_s)))
    await context.abort(getattr(grpc.StatusCode, status), details[:_MAX_DETAILS], tuple(metadata))


def _metadata(context: Any) -> tuple[str | None, str | None]:
    """What the client sent as x-request-id and as authorization."""
    request_id = authorization = None
    for name, value in context.invocation_metadata():
        if name == "x-request-id":
            request_id = value
        elif name == "authorization":
            authorization = value
    return request_id, authorization


def _bind(server: Any, config: ServeConfig) -> int:
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"{host}:{config.grpc_port}"
    _check_address(config)
    try:
        if config.tls_certificate is None or config.tls_key is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, _credentials(config)))
    except RuntimeError as error:  # grpc does not say why
        raise _cannot_listen(config, error) from error


def _check_address(config: ServeConfig) -> None:
    """Try the address, since grpc prints why it fails and does not raise it."""
    failure: OSError | None = None
    bound = False
    try:
        addresses = socket.getaddrinfo(config.host, config.grpc_port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(config, error) from error
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as attempt:
            # Former connections that have not timed out are in nobody's way.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(address)
            except OSError as error:
                failure = error
                if error.errno == errno.EADDRINUSE:
                    break
            else:
                bound = True
    # An address that the machine lacks, such as IPv6's of localhost, is no harm beside another.
    if failure is not None and (failure.errno == errno.EADDRINUSE or not bound):
        raise _cannot_listen(config, failure) from failure


def _cannot_listen(config: ServeConfig, error: Exception) -> ConfigurationError:
    reason = getattr(error, "strerror", None) or error
    return ConfigurationError(
        f"--grpc-port {config.grpc_port} on --host {config.host} cannot be listened on: {reason}; "
        "choose a free port (0 takes one) and an address of this machine"
    )


def _credentials(config: ServeConfig) -> Any:
    tls_context(config)  # grpc prints what is wrong with them and does not raise it
    certificate, key = config.tls_certificate, config.tls_key
    assert certificate is not None and key is not None
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
