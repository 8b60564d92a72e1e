"""From a configuration to a stage: what it gives, and what a runtime install lacks."""

import dataclasses
import importlib.util
import json
import re

import pytest

from pipeline.config import BenchConfig, CheckConfig, ExportConfig, TrainConfig
from pipeline.errors import MachineError, ModelError
from pipeline.stages import plan_stage, pytorch_loader, run_stage


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
        run_stage("train", train_config)
    with pytest.raises(MachineError, match=f"smp-pipeline train {message}"):
        plan_stage("train", train_config)
    with pytest.raises(MachineError, match=f"smp-pipeline export {message}"):
        run_stage("export", ExportConfig(run=tmp_path, output_dir=tmp_path / "m"))


def test_a_stage_gives_facts_for_machines_and_a_table_for_people(train_config, capsys):
    result = run_stage("train", train_config)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"wrote {train_config.output_dir}" in err
    facts = json.loads(json.dumps(result.facts))
    assert facts["density"] == pytest.approx(0.5, abs=1e-3)
    assert facts["settings"]["lambda"] == 400
    result.show()
    assert "smp-run" in capsys.readouterr().out


def test_of_several_processes_only_the_first_has_a_result(train_config, monkeypatch):
    monkeypatch.setattr("smp.train.train", lambda config: None)
    monkeypatch.setenv("RANK", "1")
    assert run_stage("train", train_config) is None


def test_a_check_says_whether_it_passed(measured, tmp_path):
    from pipeline.artifacts.benchmark import write_benchmark

    path = tmp_path / "bench.json"
    write_benchmark(path, measured)
    for ratio, verdict in ((1.02, "passed"), (0.5, "failed")):
        config = CheckConfig(bench=path, baseline=path, max_size_ratio=ratio)
        result = run_stage("check", config)
        assert result.facts["verdict"] == verdict
        assert result.passed is (verdict == "passed")


def test_the_plan_holds_every_setting_under_its_recipe_key(tmp_path, capsys):
    config = BenchConfig(models=(tmp_path,), validation_file=tmp_path / "v.csv", seed=7)
    plan = plan_stage("bench", config)
    assert plan.facts["settings"]["validation-file"] == str(tmp_path / "v.csv")
    assert plan.facts["settings"]["models"] == [str(tmp_path)]
    plan.show()
    table = capsys.readouterr().out
    assert "bootstrap-samples" in table
    assert "1, 8" in table


def test_the_plan_of_training_settles_the_defaults_and_estimates_the_cost(train_config, capsys):
    plan = plan_stage("train", train_config)
    assert plan.facts["stage"] == "train"
    assert plan.facts["settings"]["learning-rate"] == 3e-3
    assert set(plan.facts) > {"stage", "settings"}
    assert not train_config.output_dir.exists()
    plan.show()
    table = capsys.readouterr().out
    assert f"{plan.facts['pruned_weights']:,}" in table
    assert re.search(r"memory_bytes .*about [0-9.]+ MB", table)
    assert re.search(r"seconds .*about [0-9]+ s", table)


def test_the_plan_refuses_the_model_that_training_would_refuse(train_config):
    config = dataclasses.replace(train_config, model="./nope")
    with pytest.raises(ModelError, match=r"--model \./nope: no such directory; give a dir"):
        plan_stage("train", config)


def test_only_peers_of_pytorch_need_what_loads_them(tmp_path, monkeypatch, capsys):
    from export.pytorch import load_pytorch

    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    plain = BenchConfig(models=(tmp_path,), peers=("onnxruntime-int8",))
    assert pytorch_loader(plain) is None
    compiled = dataclasses.replace(plain, peers=("openvino", "pytorch-compiled"))
    assert pytorch_loader(compiled) is load_pytorch
    assert "can take minutes" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"bench --peers pytorch-compiled needs torch, .*train"):
        pytorch_loader(compiled)
