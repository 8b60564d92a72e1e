"""What schemathesis makes of the HTTP front's own description, asked of a real server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from serve.server.openapi import openapi_document
from tests.serve.server.http_front import Front, running, texts

EXAMPLES = 40
SEED = 6
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
OPERATIONS = [
    (path, method)
    for path, item in openapi_document()["paths"].items()
    for method in item
    if method != "parameters"
]


@pytest.fixture(scope="module")
def front(model: Path) -> Iterator[Front]:
    with running(model) as found:
        yield found
        # After all that, it answers as ever.
        found.ask("POST", "/v2/repository/models/words/load")
        answer = found.ask("POST", "/v2/models/words/infer", texts("good"))
        assert answer.json()["outputs"][0]["data"] == ["1"]


@pytest.fixture(scope="module")
def description(front: Front) -> Any:
    """The server's description, with the one model there is among the names."""
    document = json.loads(front.ask("GET", "/openapi.json").body)
    for item in document["paths"].values():
        for parameter in item["parameters"]:
            if parameter["in"] == "path":
                only = {"model": "words", "version": "1"}[parameter["name"]]
                parameter["schema"] = {"anyOf": [{"const": only}, parameter["schema"]]}
    return schemathesis.openapi.from_dict(document)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda value: value)
def test_no_request_is_worse_than_refused(
    path: str, method: str, mode: GenerationMode, front: Front, description: Any
) -> None:
    operation = description[path][method]

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=f"http://127.0.0.1:{front.port}", checks=CHECKS)
        if path.endswith("/unload"):  # or nothing would answer the rest
            front.ask("POST", path.format(model="words").replace("unload", "load"))

    ask()
