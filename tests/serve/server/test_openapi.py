from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import msgspec
import pytest

from serve.server.http_bodies import JsonInferRequest
from serve.server.openapi import openapi_document
from tests.serve.server.http_front import Front, running, texts

EXAMPLES = {"model": "words", "version": "1"}


@pytest.fixture(scope="module")
def front(model: Path) -> Iterator[Front]:
    with running(model) as found:
        yield found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for entry in value.values():
            yield from references(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from references(entry)


def test_the_server_describes_itself(front: Front) -> None:
    answer = front.ask("GET", "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == openapi_document()


def test_every_path_and_method_is_there_and_no_other_method_is(front: Front) -> None:
    for path, item in openapi_document()["paths"].items():
        described = {key.upper() for key in item if key != "parameters"}
        answer = front.ask("DELETE", path.format(**EXAMPLES))
        assert answer.status == 405
        assert {*answer.headers["allow"].split(", ")} - {"HEAD"} == described


def test_all_path_parameters_are_declared() -> None:
    for path, item in openapi_document()["paths"].items():
        declared = {entry["name"] for entry in item["parameters"] if entry["in"] == "path"}
        assert declared == {name for name in EXAMPLES if f"{{{name}}}" in path}


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    document = openapi_document()
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) == schemas


def test_every_answer_that_comes_is_described(front: Front) -> None:
    for path, item in openapi_document()["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            body = texts("good") if path.endswith("infer") else None
            answer = front.ask(method.upper(), path.format(**EXAMPLES), body)
            assert answer.status == 200, path
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in operation["responses"]["200"]["content"]
            if path.endswith("/unload"):
                front.ask("POST", path.format(**EXAMPLES).replace("unload", "load"))


def test_the_request_that_is_described_is_the_one_that_is_read() -> None:
    schema = openapi_document()["components"]["schemas"]["JsonInferRequest"]
    fields = {field.encode_name for field in msgspec.structs.fields(JsonInferRequest)}
    assert set(schema["properties"]) == fields


# Where a client or the server takes them for steps of the path, they lead to other operations.
@pytest.mark.parametrize(
    "name",
    [".", "..", "x/versions", "a/infer", "a/ready", "a/..", "", "x\n", "a?b#c", "%", "\0", "ß"],
)
def test_every_answer_to_an_odd_name_is_described(front: Front, name: str) -> None:
    for path, item in openapi_document()["paths"].items():
        for method, operation in item.items():
            if method == "parameters" or "{" not in path:
                continue
            for parameter in EXAMPLES:
                if f"{{{parameter}}}" not in path:
                    continue
                encoded = quote(name, safe="")
                raw = path.format(**{**EXAMPLES, parameter: encoded})
                body = texts("good") if path.endswith("infer") else None
                for sent in {raw, urljoin("http://server/", raw).removeprefix("http://server")}:
                    answer = front.ask(method.upper(), sent, body)
                    assert str(answer.status) in operation["responses"], (method, sent)
                    assert answer.headers["content-type"] == "application/json"
                    if answer.status == 405:
                        assert answer.headers["allow"]
                    if path.endswith("/unload"):
                        front.ask("POST", "/v2/repository/models/words/load")
