"""What the benchmark of many tasks makes and measures, on a tiny model."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.many_tasks import measure
from benchmarks.many_tasks_models import make_tasks
from benchmarks.size_models import make_base_model, make_random_run
from export import export_run
from pipeline.config import ExportConfig
from serve import open_session

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.mark.slow
def test_tasks_differ_in_masks_and_head_alone(
    native_library: Path, tiny_bert: Path, reviews: tuple[Path, Path], tmp_path: Path
) -> None:
    base = make_base_model(tmp_path, tiny_bert / "config.json", str(tiny_bert), seed=0)
    run = make_random_run(base, 0.3, reviews[1], seed=0, max_length=32)
    engine = tmp_path / "engine"
    export_run(ExportConfig(run=run, output_dir=engine, format="engine", embeddings="int8"))
    tasks = make_tasks(engine, base, 0.3, count=2, seed=0)
    logits = [open_session(path, threads=1).logits(["good film"]) for path in (engine, *tasks)]
    assert not np.array_equal(logits[1], logits[2])
    assert not np.array_equal(logits[0], logits[1])
    sizes = [(path / "model.onnx").stat().st_size for path in (engine, *tasks)]
    assert max(sizes) < 1.1 * min(sizes)
    assert make_tasks(engine, base, 0.3, count=2, seed=0) == tasks


@pytest.mark.slow
def test_the_report_has_all_sessions(
    native_library: Path,
    tiny_bert: Path,
    reviews: tuple[Path, Path],
    smp_pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.command.COMMAND", (smp_pipeline,))
    measure(
        argparse.Namespace(
            model=str(tiny_bert),
            validation_file=reviews[1],
            tasks=[1, 3],
            density=0.3,
            config=tiny_bert / "config.json",
            max_length=32,
            threads=1,
            requests=10,
            largest_memory_gb=8.0,
            seed=0,
            work_dir=tmp_path / "work",
            output=tmp_path / "report.md",
        )
    )
    content = json.loads((tmp_path / "work" / "many-tasks.json").read_text())
    names = {entry["name"] for entry in content["found"]}
    assert len(names) == 4
    assert {(entry["name"], entry["tasks"]) for entry in content["found"]} == {
        (name, tasks) for name in names for tasks in (1, 3)
    }
    for entry in content["found"]:
        assert len(entry["logits"]) == entry["tasks"]
        assert len(entry["same_task_seconds"]) == len(entry["any_task_seconds"]) == 10
    report = (tmp_path / "report.md").read_text()
    for name in names:
        assert f"| {name} | 3 |" in report
