import re
import runpy
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version
        versions[canonicalize_name(requirement.name)] = specifier.version
    return versions


def test_the_lock_satisfies_everything_that_the_default_environment_asks_for() -> None:
    versions = locked()
    extras = runpy.run_path(str(ROOT / "requirements" / "lock.py"))["DEFAULT_EXTRAS"]
    wanted = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    wanted += [requirement for extra in extras for requirement in EXTRAS[extra]]
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None and version in requirement.specifier, requirement


def test_onnx_runtime_comes_through_exactly_one_of_two_extras() -> None:
    def runtimes(requirements: list[str]) -> list[str]:
        names = (Requirement(requirement).name for requirement in requirements)
        return [name for name in names if name.startswith("onnxruntime")]

    assert runtimes(PROJECT["project"]["dependencies"]) == []
    found = {extra: runtimes(requirements) for extra, requirements in EXTRAS.items()}
    assert {extra: names for extra, names in found.items() if names} == {
        "cpu": ["onnxruntime"],
        "gpu": ["onnxruntime-gpu"],
    }


def test_the_runtime_installation_asks_for_no_training_package() -> None:
    runtime = [*PROJECT["project"]["dependencies"], *EXTRAS["cpu"], *EXTRAS["serve"]]
    names = {re.split(r"\W", requirement)[0] for requirement in runtime}
    assert not names & {"torch", "transformers", "accelerate", "optimum", "onnx", "onnxscript"}
