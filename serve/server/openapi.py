"""The OpenAPI description of the HTTP front."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline import __version__
from serve.server.http_bodies import (
    JsonError,
    JsonInferRequest,
    JsonInferResponse,
    JsonLive,
    JsonModelReady,
    JsonReady,
    JsonRepositoryRequest,
)
from serve.server.protocol import IndexEntry, ModelMetadata, ServerMetadata

__all__ = ["openapi_document"]

_ERRORS = {
    400: "The request says something that cannot be.",
    401: "No bearer token, or a wrong one.",
    403: "Sent by a browser for a page of another site.",
    404: "No such model or version.",
    405: "The name makes the path that of another operation, as `.` and `a/infer` may do.",
    408: "The body came too slowly.",
    413: "Beyond one of the server's limits.",
    415: "The body is compressed.",
    429: "The queue is full; the header Retry-After says when to come back.",
    500: "The model could not be run.",
    503: "Loading, failed to load, or shutting down.",
    504: "Not answered in time.",
}
_BODY_ERRORS = (403, 408, 413, 415)

_BODIES = (
    *(JsonInferRequest, JsonInferResponse, JsonRepositoryRequest, JsonLive, JsonReady),
    *(JsonModelReady, JsonError, ServerMetadata, ModelMetadata, IndexEntry),
)


def openapi_document() -> dict[str, Any]:
    """The whole description, as JSON values."""
    _, schemas = msgspec.json.schema_components(_BODIES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "smp-pipeline serve",
            "version": __version__,
            "description": (
                "The Open Inference Protocol, version 2. Errors are JSON objects with the field "
                "`error`. Every answer has the header `X-Request-ID`: the request's own, or one "
                "that is made for it."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only where the server was started with --token-file.",
                }
            },
        },
        "security": [{}, {"token": []}],
    }


def _paths() -> dict[str, Any]:
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    repository = "/v2/repository"
    metadata = _answer("What the model takes and gives.", ModelMetadata)
    ready = _answer("It answers.", JsonModelReady)
    not_ready = _answer("It does not.", JsonModelReady)
    infer = {
        "description": "The answer.",
        "content": {
            **_json(_reference(JsonInferResponse)),
            "application/octet-stream": {
                "schema": {
                    "description": "JSON of the length that the header "
                    "Inference-Header-Content-Length says, then the binary outputs.",
                }
            },
        },
    }
    paths: dict[str, Any] = {
        "/v2/health/live": _get(
            "Whether the process works",
            {"200": _answer("It does.", JsonLive), "503": _answer("It does not.", JsonLive)},
            open_to_all=True,
        ),
        "/v2/health/ready": _get(
            "Whether all models are loaded",
            {"200": _answer("They are.", JsonReady), "503": _answer("Not yet.", JsonReady)},
            open_to_all=True,
        ),
        "/v2": _get(
            "Name, version and extensions of the server",
            {"200": _answer("The server.", ServerMetadata)},
        ),
    }
    for path in (model, version):
        paths[path] = _get("What a model takes and gives", {"200": metadata}, (404, 503))
        paths[f"{path}/ready"] = _get(
            "Whether a model answers", {"200": ready, "503": not_ready}, (404,)
        )
        paths[f"{path}/infer"] = _post(
            "Ask a model", infer, JsonInferRequest, (404, 429, 500, 503, 504), required=True
        )
    index = {"type": "array", "items": _reference(IndexEntry)}
    paths[f"{repository}/index"] = _post(
        "All models, or those that are ready",
        {"description": "The models.", "content": _json(index)},
        JsonRepositoryRequest,
    )
    nothing = {"description": "Done.", "content": _json({"type": "object"})}
    for action, summary in (
        ("load", "Load a model, or load it anew; the former one answers until then"),
        ("unload", "Take a model out of service"),
    ):
        paths[f"{repository}/models/{{model}}/{action}"] = _post(
            summary, nothing, JsonRepositoryRequest, (404, 503)
        )
    text = {"schema": {"type": "string"}}
    paths["/metrics"] = _get(
        "Metrics for Prometheus",
        {
            "200": {
                "description": "The metrics.",
                "content": {"text/plain": text, "application/openmetrics-text": text},
            }
        },
    )
    paths["/openapi.json"] = _get(
        "This description",
        {"200": {"description": "OpenAPI 3.1.", "content": _json({"type": "object"})}},
    )
    paths["/"] = _get(
        "A page to try the models by hand",
        {"200": {"description": "The page.", "content": {"text/html": text}}},
        open_to_all=True,
    )
    for path, item in paths.items():
        if "{" in path:
            for operation in item.values():
                operation["responses"].update(_refusals((405,)))
        item["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
            for name in ("model", "version")
            if f"{{{name}}}" in path
        ] + [
            {
                "name": "X-Request-ID",
                "in": "header",
                "description": "For the log and the answer.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
            }
        ]
    return paths


def _get(
    summary: str,
    answers: dict[str, Any],
    errors: Sequence[int] = (),
    *,
    open_to_all: bool = False,
) -> dict[str, Any]:
    refusals = (400, *errors) if open_to_all else (400, 401, *errors)
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {**_refusals(refusals), **answers},
    }
    if open_to_all:
        operation["security"] = []
    return {"get": operation}


def _post(
    summary: str,
    answer: dict[str, Any],
    body: type,
    errors: Sequence[int] = (),
    *,
    required: bool = False,
) -> dict[str, Any]:
    refusals = _refusals((400, 401, *_BODY_ERRORS, *errors))
    operation: dict[str, Any] = {
        "summary": summary,
        "requestBody": {"required": required, "content": _json(_reference(body))},
        "responses": {"200": answer, **refusals},
    }
    return {"post": operation}


def _refusals(statuses: Sequence[int]) -> dict[str, Any]:
    return {str(status): _answer(_ERRORS[status], JsonError) for status in statuses}


def _answer(description: str, body: type) -> dict[str, Any]:
    return {"description": description, "content": _json(_reference(body))}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(body: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{body.__name__}"}
