import re
import runpy
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def locked(file: str = "lock.txt") -> dict[str, str]:
    lines = (ROOT / "requirements" / file).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version
        versions[canonicalize_name(requirement.name)] = specifier.version
    return versions


def lock_extras() -> tuple[str, ...]:
    extras: tuple[str, ...] = runpy.run_path(str(ROOT / "requirements" / "lock.py"))[
        "DEFAULT_EXTRAS"
    ]
    return extras


def test_the_lock_satisfies_everything_that_the_default_environment_asks_for() -> None:
    versions = locked()
    wanted = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    wanted += [requirement for extra in lock_extras() for requirement in EXTRAS[extra]]
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None and version in requirement.specifier, requirement


def test_the_lowest_versions_are_the_bounds_and_fit_together() -> None:
    lowest = runpy.run_path(str(ROOT / "requirements" / "lowest.py"))
    versions = locked("lowest.txt")
    bounds = {**lowest["lower_bounds"](), **lowest["TESTED_ABOVE"]}
    assert {name: Version(versions[name]) for name in bounds} == {
        name: Version(version) for name, version in bounds.items()
    }
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(text for extra in lock_extras() for text in EXTRAS[extra]),
    ]
    for requirement in map(Requirement, wanted):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


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


def test_the_runtime_installation_asks_for_nothing_of_training_and_measuring() -> None:
    runtime = [*PROJECT["project"]["dependencies"], *EXTRAS["cpu"], *EXTRAS["serve"]]
    names = {re.split(r"\W", requirement)[0] for requirement in runtime}
    others = {re.split(r"\W", text)[0] for extra in ("bench", "train") for text in EXTRAS[extra]}
    assert {"torch", "datasets"} <= others
    assert not names & others
