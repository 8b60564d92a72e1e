"""The manifests of deploy/ against the server that they start."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import ServeConfig
from pipeline.config.fields import build
from tests.serve.server.running import ServerProcess, ask

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy").glob("*/*.yaml"))
DEFAULT_GRACE_S = 30  # Kubernetes'


class Pod(NamedTuple):
    """A pod of a manifest, with a container that serves."""

    file: Path
    spec: dict[str, Any]
    container: dict[str, Any]

    @property
    def config(self) -> ServeConfig:
        """What the container's arguments say."""
        _, models, *flags = self.container["args"]
        pairs = (flag.removeprefix("--").split("=") for flag in flags)
        values = {key: yaml.safe_load(value) for key, value in pairs}
        return build(ServeConfig, {"models": [models], **values}, source=self.file.name)


def read(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def pods() -> Iterator[Pod]:
    for file in FILES:
        for document in read(file):
            spec = document["spec"]
            for pod in (spec, spec.get("predictor", {}), spec.get("template", {}).get("spec", {})):
                for container in pod.get("containers", ()):
                    yield Pod(file, pod, container)


PODS = list(pods())
EACH_POD = pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.file.stem)


def test_each_way_to_deploy_has_a_pod_that_serves() -> None:
    assert {pod.file.name for pod in PODS} == {
        "deployment.yaml",
        "runtime.yaml",
        "inference-service-custom.yaml",
    }


@EACH_POD
def test_the_command_line_takes_the_arguments(pod: Pod) -> None:
    result = CliRunner().invoke(app, [*pod.container["args"], "--dry-run"])
    assert result.exit_code == 0, result.output
    assert pod.container["args"][0] == "serve"
    assert pod.config.host == "0.0.0.0"


@EACH_POD
def test_ports_and_probes_are_the_servers(pod: Pod, server: ServerProcess) -> None:
    ports = {port["name"]: port["containerPort"] for port in pod.container.get("ports", ())}
    if ports:
        assert ports == {"http": pod.config.port, "grpc": pod.config.grpc_port}
    for probe in ("livenessProbe", "readinessProbe"):
        get = pod.container[probe]["httpGet"]
        assert ports.get(get["port"], get["port"]) == pod.config.port
        assert ask(server.port, "GET", get["path"]).status == 200


def test_metrics_are_where_the_annotations_say(server: ServerProcess) -> None:
    found = {
        (value, file.name)
        for file in FILES
        for line in file.read_text(encoding="utf-8").splitlines()
        for value in re.findall(r"(?:prometheus\.io|prometheus\.kserve\.io)/path: (.*)", line)
    }
    assert {name for _, name in found} == {"deployment.yaml", "runtime.yaml"}
    for path, _ in found:
        assert b"smp_build_info" in ask(server.port, "GET", path).body


def test_the_service_leads_to_the_deployments_pods() -> None:
    (deployment,) = read(ROOT / "deploy/kubernetes/deployment.yaml")
    (service,) = read(ROOT / "deploy/kubernetes/service.yaml")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    names = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == names


def test_the_inference_service_fits_the_runtime() -> None:
    (runtime,) = read(ROOT / "deploy/kserve/runtime.yaml")
    (service,) = read(ROOT / "deploy/kserve/inference-service.yaml")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = [
        (entry["name"], entry["version"]) for entry in runtime["spec"]["supportedModelFormats"]
    ]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    (pod,) = (pod for pod in PODS if pod.file.name == "runtime.yaml")
    assert [port["containerPort"] for port in model["ports"]] == [
        pod.config.port,
        pod.config.grpc_port,
    ]


def test_a_pod_has_the_time_to_finish_what_it_accepted() -> None:
    (inference,) = read(ROOT / "deploy/kserve/inference-service.yaml")
    predictor = inference["spec"]["predictor"]
    for pod in PODS:
        # The runtime's pod is the one of its InferenceService.
        is_runtime = pod.file.name == "runtime.yaml"
        spec, container = (predictor, predictor["model"]) if is_runtime else pod[1:]
        command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        needed = int(seconds) + pod.config.shutdown_timeout_s
        assert needed < spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S)


@EACH_POD
def test_a_pod_runs_as_the_images_user_and_writes_only_where_it_may(pod: Pod) -> None:
    (uid,) = re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    security = {**pod.spec.get("securityContext", {}), **pod.container["securityContext"]}
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == int(uid)
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    empty = {volume["name"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
    writable = {
        mount["mountPath"] for mount in pod.container["volumeMounts"] if mount["name"] in empty
    }
    (cache,) = (
        entry["value"] for entry in pod.container["env"] if entry["name"] == "SMP_ENGINE_CACHE"
    )
    assert cache in writable


@EACH_POD
def test_a_pod_has_whole_cores(pod: Pod) -> None:
    """The server takes as many threads as its CPU limit has whole cores; a part would idle."""
    resources = pod.container["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]
    assert int(resources["limits"]["cpu"]) >= 1
