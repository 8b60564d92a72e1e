"""Print what is wrong with Kubernetes and KServe manifests, a JSON object: file -> list of lines.

Compares them with the models of the kubernetes client and of the KServe SDK: keys that these do
not have, keys that are missing, values of another type. Runs in an environment of its own
(requirements/kserve.txt) and imports nothing of this project.

    python manifests.py FILE...
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import kserve
import kubernetes.client
import yaml

KINDS = {
    ("apps/v1", "Deployment"): "V1Deployment",
    ("v1", "Service"): "V1Service",
    ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"): "V1alpha1ClusterServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
PRIMITIVES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "object": (object,),
    "ResourceQuantity": (str, int),
}
LIST = re.compile(r"[Ll]ist\[(.*)\]")
MAP = re.compile(r"[Dd]ict[\[(]str, (.*)[\])]")


def convert(kind: str, value: Any, where: str, problems: list[str]) -> Any:
    """The value as the model's class; what does not fit is added to the problems."""
    if (of := LIST.fullmatch(kind)) and isinstance(value, list):
        return [convert(of[1], item, f"{where}[{n}]", problems) for n, item in enumerate(value)]
    if (of := MAP.fullmatch(kind)) and isinstance(value, dict):
        return {key: convert(of[1], value[key], f"{where}.{key}", problems) for key in value}
    if kind in PRIMITIVES:
        is_bool = isinstance(value, bool) and kind not in ("bool", "object")
        if is_bool or not isinstance(value, PRIMITIVES[kind]):
            problems.append(f"{where}: expected {kind}, got {value!r}")
        return value
    model = getattr(kubernetes.client, kind, None) or getattr(kserve, kind, None)
    if model is None or not isinstance(value, dict):
        problems.append(f"{where}: expected {kind}, got {value!r}")
        return value
    attributes = {key: name for name, key in model.attribute_map.items()}
    found = len(problems)
    fields = {}
    for key, item in value.items():
        if key in attributes:
            name = attributes[key]
            fields[name] = convert(model.openapi_types[name], item, f"{where}.{key}", problems)
        else:
            problems.append(f"{where}: {kind} has no {key!r}")
    if len(problems) > found:
        return None
    try:
        return model(**fields)
    except ValueError as error:  # of the one by hand, of the other by pydantic
        problems.append(f"{where}: {error}")
        return None


def check(path: str) -> list[str]:
    problems: list[str] = []
    for document in yaml.safe_load_all(Path(path).read_text(encoding="utf-8")):
        kind = (document["apiVersion"], document["kind"])
        if kind in KINDS:
            convert(KINDS[kind], document, kind[1], problems)
        else:
            problems.append(f"unknown kind {kind}")
    return problems


if __name__ == "__main__":
    print(json.dumps({path: check(path) for path in sys.argv[1:]}))
