"""From a configuration to a stage: what is printed, and what a runtime install lacks."""

import dataclasses
import importlib.util
import json
import re

import pytest

from pipeline.config import BenchConfig, CheckConfig, ExportConfig, TrainConfig
from pipeline.errors import MachineError, ModelError
from pipeline.stages import plan_stage, run_stage


@pytest.fixture
def train_config(tiny_bert, reviews, tmp_path):
    return TrainConfig(
        model=str(tiny_bert),
        output_dir=tmp_path / "run",
        train_file=reviews[0],
        validation_file=reviews[1],
        density=0.5,
        steps=2,
        device="cpu",
    )


def test_training_and_export_name_the_packages_that_a_runtime_install_lacks(
    train_config, tmp_path, monkeypatch
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("torch", "onnx") else found(name)
    )
    message = r"needs torch, onnx; install them with: pip install 'smp-pipeline\[train\]'"
    with pytest.raises(MachineError, match=f"smp-pipeline train {message}"):
        run_stage("train", train_config, as_json=False)
    with pytest.raises(MachineError, match=f"smp-pipeline train {message}"):
        plan_stage("train", train_config, as_json=False)
    with pytest.raises(MachineError, match=f"smp-pipeline export {message}"):
        run_stage("export", ExportConfig(run=tmp_path, output_dir=tmp_path / "m"), as_json=False)


def test_a_stage_prints_json_for_machines_and_a_table_for_people(train_config, capsys):
    assert run_stage("train", train_config, as_json=True)
    out, err = capsys.readouterr()
    manifest = json.loads(out)
    assert manifest["density"] == pytest.approx(0.5, abs=1e-3)
    assert manifest["settings"]["lambda"] == 400
    assert f"wrote {train_config.output_dir}" in err


def test_a_check_says_whether_it_passed(measured, tmp_path, capsys):
    from pipeline.artifacts.benchmark import write_benchmark

    path = tmp_path / "bench.json"
    write_benchmark(path, measured)
    assert run_stage("check", CheckConfig(bench=path, baseline=path), as_json=True)
    assert json.loads(capsys.readouterr().out)["verdict"] == "passed"
    stricter = CheckConfig(bench=path, baseline=path, max_size_ratio=0.5)
    assert not run_stage("check", stricter, as_json=True)
    assert json.loads(capsys.readouterr().out)["verdict"] == "failed"


def test_the_plan_holds_every_setting_under_its_recipe_key(tmp_path, capsys):
    config = BenchConfig(models=(tmp_path,), validation_file=tmp_path / "v.csv", seed=7)
    plan_stage("bench", config, as_json=True)
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["validation-file"] == str(tmp_path / "v.csv")
    assert settings["models"] == [str(tmp_path)]
    plan_stage("bench", config, as_json=False)
    table = capsys.readouterr().out
    assert "bootstrap-samples" in table
    assert "1, 8" in table


def test_the_plan_of_training_settles_the_defaults_and_estimates_the_cost(train_config, capsys):
    plan_stage("train", train_config, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["stage"] == "train"
    assert plan["settings"]["learning-rate"] == 3e-3
    assert set(plan) > {"stage", "settings"}
    assert not train_config.output_dir.exists()
    plan_stage("train", train_config, as_json=False)
    table = capsys.readouterr().out
    assert f"{plan['pruned_weights']:,}" in table
    assert re.search(r"memory_bytes .*about [0-9.]+ MB", table)
    assert re.search(r"seconds .*about [0-9]+ s", table)


def test_the_plan_refuses_the_model_that_training_would_refuse(train_config):
    config = dataclasses.replace(train_config, model="./nope")
    with pytest.raises(ModelError, match=r"--model \./nope: no such directory; give a dir"):
        plan_stage("train", config, as_json=True)
