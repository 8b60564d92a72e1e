"""The HTTP front: the Open Inference Protocol, metrics, the API's description and the page."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable

import msgspec
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.server.auth import check_token
from serve.server.errors import InvalidRequest, NotFound, RequestError
from serve.server.http_bodies import (
    JsonError,
    JsonLive,
    JsonModelReady,
    JsonReady,
    JsonRepositoryRequest,
)
from serve.server.http_codec import decode_infer_request, decode_json, encode_infer_response
from serve.server.http_exchange import Answer, BodyBudget, Exchange, Watch
from serve.server.logs import log
from serve.server.openapi import openapi_document
from serve.server.page import PAGE, PAGE_HEADERS
from serve.server.service import Service

__all__ = ["create_http_app"]

# Load balancers and browsers bring no token; the page asks for it.
_PROBES = frozenset({"/v2/health/live", "/v2/health/ready"})
_OPEN_PATHS = _PROBES | {"/", "/openapi.json"}
_RETRY_AFTER_S = 1
_MAX_ERROR_CHARS = 1000
# Requests of the largest size that may be read at once.
_LARGE_REQUESTS = 16
_MAX_LOGGED_CHARS = 200

_Handler = Callable[[Exchange], Awaitable[Answer]]


_REPOSITORY_REQUEST = msgspec.json.Decoder(JsonRepositoryRequest)
_ENCODER = msgspec.json.Encoder()


def create_http_app(service: Service, token: str | None) -> ASGIApp:
    """The ASGI application.

    Args:
        service: answers.
        token: that requests must bring; None if they need none.
    """
    return _Application(service, token)


class _Endpoint:
    """A handler as an ASGI application, which Starlette calls without a Request of its own."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.answer = await self._handler(exchange)


class _Application:
    """What all requests have in common: token, errors, request ids, metrics, log."""

    def __init__(self, service: Service, token: str | None) -> None:
        self._service = service
        self._token = token
        self._timeout_s = service.config.request_timeout_s
        self._log_requests = service.config.log_requests
        self._watch = Watch()
        self._router = Router(_Handlers(service).routes(), redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, self._watch, self._timeout_s)
        scope["exchange"] = exchange
        scope["app"] = self  # has the router raise 404 and 405 instead of answering them
        error: str | None = None
        try:
            exchange.take_request_id()
            _refuse_other_sites(exchange)
            if self._token is not None and scope["path"] not in _OPEN_PATHS:
                authorization = exchange.headers.get(b"authorization", b"")
                check_token(authorization.decode("latin-1"), self._token)
            await self._router(scope, receive, send)
            answer = exchange.answer
            assert answer is not None
        except RequestError as exception:
            error = str(exception)
            answer = _error_answer(exception.http_status, error, exception.retry_after_s)
        except HTTPException as exception:
            answer, error = _http_error_answer(exception, scope)
        except asyncio.CancelledError:
            error = "the server is shutting down"
            answer = _error_answer(503, error)
        except Exception:
            error = "the server failed on this request; its log says more"
            answer = _error_answer(500, error)
            log(
                logging.ERROR,
                "unforeseen error",
                request_id=exchange.request_id.decode(),
                traceback=traceback.format_exc(),
            )
        await exchange.send_answer(send, answer)
        self._finish(exchange, answer.status, error)

    def _finish(self, exchange: Exchange, status: int, error: str | None) -> None:
        seconds = time.perf_counter() - exchange.begun_s
        model = self._known_model(exchange, status)
        self._service.metrics.request("http", model, str(status), seconds)
        is_probe = exchange.scope["path"] in _PROBES  # these would fill the log
        if (self._log_requests or status >= 500) and not is_probe:
            fields: dict[str, object] = {
                "request_id": exchange.request_id.decode(),
                "protocol": "http",
                "method": exchange.scope["method"],
                "path": exchange.scope["path"][:_MAX_LOGGED_CHARS],
                "model": model,
                "status": status,
                "duration_ms": round(seconds * 1000.0, 3),
            }
            if error is not None:
                fields["error"] = error[:_MAX_ERROR_CHARS]
            log(logging.ERROR if status == 500 else logging.INFO, "request", **fields)

    def _known_model(self, exchange: Exchange, status: int) -> str:
        """The model in the path; empty for a name that a client made up."""
        model: str = exchange.scope.get("path_params", {}).get("model", "")
        if model and status != 200:
            try:
                self._service.model_ready(model, "")
            except NotFound:
                return ""
        return model


class _Handlers:
    """One method an operation."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._max_bytes = service.config.max_request_bytes
        self._budget = BodyBudget(_LARGE_REQUESTS * service.config.max_request_bytes)
        self._openapi = _ENCODER.encode(openapi_document())

    def routes(self) -> list[Route]:
        """All routes, the busiest first."""
        model = "/v2/models/{model}"
        version = f"{model}/versions/{{version}}"
        repository = "/v2/repository"
        return [
            _route(f"{model}/infer", self.infer, "POST"),
            _route(f"{version}/infer", self.infer, "POST"),
            _route("/v2/health/live", self.live, "GET"),
            _route("/v2/health/ready", self.ready, "GET"),
            _route("/metrics", self.metrics, "GET"),
            _route(f"{model}/ready", self.model_ready, "GET"),
            _route(f"{version}/ready", self.model_ready, "GET"),
            _route(model, self.model_metadata, "GET"),
            _route(version, self.model_metadata, "GET"),
            _route("/v2", self.server_metadata, "GET"),
            _route(f"{repository}/index", self.index, "POST"),
            _route(f"{repository}/models/{{model}}/load", self.load, "POST"),
            _route(f"{repository}/models/{{model}}/unload", self.unload, "POST"),
            _route("/openapi.json", self.openapi, "GET"),
            _route("/", self.page, "GET"),
        ]

    async def infer(self, exchange: Exchange) -> Answer:
        body = await exchange.read_body(self._max_bytes, self._budget)
        parameters = exchange.scope["path_params"]
        request, binary = decode_infer_request(
            parameters["model"],
            parameters.get("version", ""),
            body,
            exchange.headers.get(b"inference-header-content-length"),
            max_texts=self._service.config.max_request_texts,
        )
        del body  # not to be kept while the request waits
        work = self._service.infer(request, timeout_s=exchange.remaining_s())
        response = await exchange.while_connected(work)
        content, json_length = encode_infer_response(response, binary)
        if json_length is None:
            return Answer(200, content)
        length = (b"inference-header-content-length", b"%d" % json_length)
        return Answer(200, content, b"application/octet-stream", (length,))

    async def live(self, exchange: Exchange) -> Answer:
        live = self._service.live()
        return _json_answer(JsonLive(live), 200 if live else 503)

    async def ready(self, exchange: Exchange) -> Answer:
        ready = self._service.ready()
        return _json_answer(JsonReady(ready), 200 if ready else 503)

    async def metrics(self, exchange: Exchange) -> Answer:
        accept = exchange.headers.get(b"accept", b"").decode("latin-1")
        body, content_type = self._service.metrics.render(accept)
        return Answer(200, body, content_type.encode("latin-1"))

    async def model_ready(self, exchange: Exchange) -> Answer:
        name, version = _model(exchange)
        ready = self._service.model_ready(name, version)
        return _json_answer(JsonModelReady(name, ready), 200 if ready else 503)

    async def model_metadata(self, exchange: Exchange) -> Answer:
        return _json_answer(self._service.model_metadata(*_model(exchange)))

    async def server_metadata(self, exchange: Exchange) -> Answer:
        return _json_answer(self._service.server_metadata())

    async def index(self, exchange: Exchange) -> Answer:
        request = await self._repository_request(exchange)
        return _json_answer(self._service.index(ready_only=request.ready))

    async def load(self, exchange: Exchange) -> Answer:
        request = await self._repository_request(exchange)
        if request.parameters:
            raise InvalidRequest(
                "a model is loaded from its directory as it is; leave the parameters out"
            )
        await self._service.load(_model(exchange)[0])
        return _json_answer({})

    async def unload(self, exchange: Exchange) -> Answer:
        await self._repository_request(exchange)
        await self._service.unload(_model(exchange)[0])
        return _json_answer({})

    async def openapi(self, exchange: Exchange) -> Answer:
        return Answer(200, self._openapi)

    async def page(self, exchange: Exchange) -> Answer:
        return Answer(200, PAGE, b"text/html; charset=utf-8", PAGE_HEADERS)

    async def _repository_request(self, exchange: Exchange) -> JsonRepositoryRequest:
        body = await exchange.read_body(self._max_bytes, self._budget)
        if not body:
            return JsonRepositoryRequest()
        return decode_json(_REPOSITORY_REQUEST, body, "the body")


def _refuse_other_sites(exchange: Exchange) -> None:
    """Refuse what a page of another site has a visitor's browser post, such as an unload."""
    if exchange.scope["method"] != "POST":
        return
    site = exchange.headers.get(b"sec-fetch-site")
    is_other = site in (b"cross-site", b"same-site")
    origin = exchange.headers.get(b"origin")
    if site is None and origin is not None:  # browsers say the site over TLS and to loopback only
        hosts = (exchange.headers.get(b"host"), exchange.headers.get(b"x-forwarded-host"))
        is_other = origin.partition(b"://")[2] not in hosts  # a page cannot set the second
    if is_other:
        raise HTTPException(403, "this server takes no requests from pages of other sites")


def _route(path: str, handler: _Handler, method: str) -> Route:
    return Route(path, _Endpoint(handler), methods=[method], name=path)


def _model(exchange: Exchange) -> tuple[str, str]:
    parameters = exchange.scope["path_params"]
    return parameters["model"], parameters.get("version", "")


def _json_answer(content: object, status: int = 200) -> Answer:
    headers = _retry_after(_RETRY_AFTER_S) if status == 503 else ()
    return Answer(status, _ENCODER.encode(content), headers=headers)


def _error_answer(status: int, message: str, retry_after_s: int | None = None) -> Answer:
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if status in (429, 503):
        headers = _retry_after(retry_after_s or _RETRY_AFTER_S)
    elif status == 401:
        headers = ((b"www-authenticate", b"Bearer"),)
    return Answer(status, _ENCODER.encode(JsonError(message[:_MAX_ERROR_CHARS])), headers=headers)


def _http_error_answer(exception: HTTPException, scope: Scope) -> tuple[Answer, str]:
    status = exception.status_code
    if status == 404:
        message = f"there is no {scope['path']}; /openapi.json describes what there is"
        return _error_answer(status, message), message
    if status == 405:
        allowed = ", ".join(sorted((exception.headers or {}).get("Allow", "").split(", ")))
        message = f"{scope['path']} takes {allowed}, not {scope['method']}"
        answer = _error_answer(status, message)
        return answer._replace(headers=((b"allow", allowed.encode()),)), message
    return _error_answer(status, exception.detail), exception.detail


def _retry_after(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", b"%d" % seconds),)
