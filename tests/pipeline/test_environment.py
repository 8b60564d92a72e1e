"""Versions as they are installed, and who speaks for several processes."""

import platform
from importlib.metadata import version

import pytest

import pipeline
from pipeline.environment import is_main_process, package_versions


def test_versions_of_what_is_installed_and_silence_about_the_rest():
    versions = package_versions(["numpy", "no-such-package"])
    assert versions == {
        "smp-pipeline": pipeline.__version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False)])
def test_one_of_several_processes_speaks_for_all(monkeypatch, rank, main):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main_process() is main
