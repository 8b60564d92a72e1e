"""Versions and hardware as this machine has them."""

import json
import os
import platform
from importlib.metadata import version

import pytest

import pipeline
from pipeline.environment import cpu_count, hardware, is_main_process, package_versions


def test_versions_of_what_is_installed_and_silence_about_the_rest():
    versions = package_versions(["numpy", "no-such-package"])
    assert versions == {
        "smp-pipeline": pipeline.__version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }


def test_the_hardware_fits_into_json_and_says_what_this_process_may_use():
    facts = json.loads(json.dumps(hardware()))
    assert facts["cpus"] == cpu_count() == len(os.sched_getaffinity(0))
    assert facts["memory_bytes"] > 0
    assert facts["cpu"]
    assert facts["system"] == platform.system()


def test_fewer_processors_are_counted_where_the_process_may_use_fewer():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False)])
def test_one_of_several_processes_speaks_for_all(monkeypatch, rank, main):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main_process() is main
