"""The measurement of the runtime: one command makes the models, times all engines and reports."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import runtime, runtime_engines
from benchmarks.runtime_cells import ratio, stages_ms
from benchmarks.runtime_engines import ENGINES, Subject, WorkerProcess, find_python
from benchmarks.runtime_table import report
from pipeline.errors import MachineError


@pytest.fixture
def run(smp_pipeline, monkeypatch):
    """Do what the command `python -m benchmarks.runtime` does."""
    monkeypatch.setattr("benchmarks.command.COMMAND", (smp_pipeline,))

    def measure(*arguments):
        monkeypatch.setattr("sys.argv", ["runtime.py", *map(str, arguments)])
        return runtime.main()

    return measure


@pytest.mark.slow
def test_one_command_measures_all_installed_engines(
    run, tiny_bert, tiny_run, reviews, native_library, tmp_path
):
    arguments = ["--config", tiny_bert / "config.json", "--work-dir", tmp_path / "work"]
    arguments += ["--output", tmp_path / "table.md", "--densities", "0.5", "0.1"]
    arguments += ["--sequences", "8", "128", "--threads", "1", "--processes", "1"]
    arguments += ["--seconds-per-cell", "0.01"]
    engines = ["--engines", "ort-fp32", "ort-int8", "engine-fp32", "engine-int8"]
    trained = ["--run", tiny_run, "--validation-file", reviews[1]]
    assert run(*arguments, *engines, "--batches", "1", *trained) == 0
    content = json.loads((tmp_path / "work" / "runtime.json").read_text(encoding="utf-8"))
    part = content["parts"]["random"]
    keys = ["ort-fp32", "ort-int8", "engine-fp32@density 0.5", "engine-fp32@density 0.1"]
    keys += ["engine-int8@density 0.5", "engine-int8@density 0.1"]
    assert list(part["startup"]) == keys
    # The tiny model takes 64 tokens: there is no cell of 128.
    assert [(cell["batch_size"], cell["sequence_length"]) for cell in part["cells"]] == [(1, 8)]
    assert list(part["cells"][0]["engines"]) == keys
    assert part["cells"][0]["engines"]["engine-int8@density 0.1"]["stages_ms"]
    exact = {key: part["startup"][key]["largest_logit_difference"] for key in keys}
    largest = part["startup"]["ort-fp32"]["largest_logit"]
    assert exact["ort-fp32"] == 0.0
    assert exact["engine-fp32@density 0.5"] < 1e-3 * largest
    assert 0.0 < exact["engine-int8@density 0.5"] < 0.2 * largest
    assert 0.0 < exact["ort-int8"] < largest
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "### Density 0.1, 1 thread\n" in table
    assert "Times as long as engine-int8:" in table

    trained = content["parts"]["trained"]
    assert trained["texts"] == 48
    keys = ["ort-fp32", "ort-int8", "engine-fp32@density 0.3", "engine-int8@density 0.3"]
    assert list(trained["accuracy"]) == keys
    assert trained["agreement"]["engine-fp32@density 0.3"] == 1.0
    assert "Accuracy on 48 labelled texts:" in table

    assert run(*arguments, "--engines", "ort-fp32", "--batches", "1", "2", "--resume") == 0
    content = json.loads((tmp_path / "work" / "runtime.json").read_text(encoding="utf-8"))
    cells = content["parts"]["random"]["cells"]
    assert cells[0] == part["cells"][0]
    assert [(cell["batch_size"], cell["sequence_length"]) for cell in cells] == [(1, 8), (2, 8)]


def test_engines_without_their_environment_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime_engines, "ROOT", tmp_path)
    assert find_python("deepsparse", install=False) is None
    assert find_python("onnxruntime", install=False) == Path(sys.executable)


def test_a_worker_that_cannot_open_its_model_names_the_engine(tmp_path):
    model = tmp_path / "dense.onnx"
    model.write_bytes(b"no model")
    subject = Subject(ENGINES["ort-fp32"], None, model, 10)
    worker = WorkerProcess(subject, Path(sys.executable), tmp_path / "log")
    try:
        with pytest.raises(MachineError, match=r"ort-fp32 cannot open .*dense\.onnx: "):
            worker.open(1, (1, 4))
    finally:
        worker.close()


def entry(engine, model, turns):
    median = sorted(turns)[len(turns) // 2]
    estimate = {"value": median, "low": median, "high": median}
    return {
        "engine": engine,
        "model": model,
        "turns_ms": turns,
        "median_ms": estimate,
        "spread": 0.05,
        "noisy": engine == "ort-fp32",
        "stages_ms": {"attention": 1.5} if engine == "engine-int8" else {},
    }


def test_ratios_say_how_many_times_as_long_the_peer_took():
    engines = {
        "ort-fp32": entry("ort-fp32", None, [60.0, 66.0, 54.0]),
        "engine-int8@density 0.1": entry("engine-int8", "density 0.1", [10.0, 11.0, 9.0]),
    }
    cell = {"threads": 2, "batch_size": 1, "sequence_length": 128, "engines": engines}
    # Each turn of the pair is six times as long, however the turns themselves vary.
    found = ratio(cell, "ort-fp32", "engine-int8@density 0.1")
    assert found == pytest.approx({"value": 6.0, "low": 6.0, "high": 6.0})
    part = {"densities": {"density 0.1": 0.1}, "cells": [cell], "startup": {}}
    content = {
        "machine": {"load_average": 3.0},
        "versions": {},
        "left_out": ["openvino"],
        "parts": {"random": part},
    }
    lines = list(report(content))
    assert "**Other work was running when it started (load average 3.0).**" in lines
    assert "Left out, not installed: openvino." in lines
    assert "| 1 x 128 | 60 (5%) | 10 (5%) | ort-fp32 |" in lines
    assert "| 1 x 128 | 6.00 (6.00 to 6.00) |" in lines
    assert "| engine-int8@density 0.1 | 2 | 1 x 128 | 1.50 |" in lines


def test_stage_times_of_all_operators_are_added_up_a_run():
    nodes = [{"profile": {"attention": 0.25, "norm": 0.5}}, {"profile": {"attention": 0.75}}, {}]
    assert stages_ms({"nodes": nodes}, 10) == {"attention": 100.0, "norm": 50.0}
