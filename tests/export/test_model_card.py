import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from export import export_run
from export.model_card import write_model_card
from pipeline.artifacts.exported import ExportManifest, read_exported
from pipeline.artifacts.run import read_run
from pipeline.config import ExportConfig

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def exported(random_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("card") / "model"
    export_run(ExportConfig(run=random_run, output_dir=directory, format="packed"))
    return directory


@pytest.fixture(scope="module")
def card(exported: Path) -> str:
    return (exported / "README.md").read_text(encoding="utf-8")


def test_the_front_matter_is_that_of_a_hub_card(card: str):
    _, front, _ = card.split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["library_name"] == "onnx"
    assert content["pipeline_tag"] == "text-classification"
    assert "base_model" not in content  # it was a directory, not a hub id


def test_the_table_of_densities_is_that_of_the_run(card: str, random_run: Path):
    run = read_run(random_run)
    rows = dict(re.findall(r"^\| (\w+) \| [\d,]+ \| (\d\.\d{4}) \|", card, re.MULTILINE))
    assert float(rows["all"]) == pytest.approx(run.density, abs=5e-5)
    for kind in {matrix.matrix_type for matrix in run.matrices.values()}:
        matrices = [matrix for matrix in run.matrices.values() if matrix.matrix_type == kind]
        kept = sum(matrix.kept for matrix in matrices) / sum(matrix.size for matrix in matrices)
        assert float(rows[kind]) == pytest.approx(kept, abs=5e-5)


def test_sizes_are_those_of_the_files(card: str, exported: Path):
    sizes = dict(re.findall(r"^\| `([\w.]+)` \| ([\d,]+) \|$", card, re.MULTILINE))
    assert "model.onnx" in sizes
    for name, size in sizes.items():
        assert int(size.replace(",", "")) == (exported / name).stat().st_size


def test_no_directory_of_the_training_machine_is_named(card: str, reviews, tiny_bert: Path):
    assert str(reviews[1].parent) not in card
    assert str(tiny_bert.parent) not in card
    assert reviews[1].name in card


def test_the_code_of_the_card_runs(card: str, exported: Path, monkeypatch, random_run: Path):
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    monkeypatch.chdir(exported)
    scope: dict[str, object] = {}
    exec(code, scope)
    logits = scope["logits"]
    assert isinstance(logits, np.ndarray)
    assert logits.shape == (1, 2)


def test_a_finetuned_run_says_that_nothing_is_pruned(make_run, tmp_path: Path):
    manifest = export_run(
        ExportConfig(run=make_run(method="finetune"), output_dir=tmp_path / "model")
    )
    assert isinstance(manifest, ExportManifest)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "fine-tuned" in card
    assert "Nothing is pruned" in card


def test_method_and_pattern_are_said_and_weights_are_not_called_unchanged_that_are(
    card: str, exported: Path, tmp_path: Path
):
    assert "unchanged" in card
    assert "Pattern" not in card
    manifest = read_exported(exported)
    run = {**manifest.run, "pattern": "2:4"}
    write_model_card(tmp_path, dataclasses.replace(manifest, method="movement", run=run))
    changed = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "unchanged" not in changed
    assert "movement pruning" in changed
    assert "Pattern: 2:4" in changed
