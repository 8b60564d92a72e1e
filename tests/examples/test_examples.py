"""Every example runs as its head says, on tiny models."""

import runpy
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    PreTrainedModel,
)

from pipeline.artifacts.benchmark import read_benchmark
from pipeline.recipe import read_recipe, resolve
from pipeline.stages import run_stage
from tests.made_up_models import TINY_BERT, save_tiny_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.usefixtures("native_library")


def save_tiny_model(cls: type[PreTrainedModel], directory: Path) -> Path:
    torch.manual_seed(0)
    cls(BertConfig(**TINY_BERT)).save_pretrained(directory)
    save_tiny_tokenizer(directory)
    return directory


def run_script(name: str, words: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def run_recipe(name: str, flags: Sequence[str]) -> None:
    path = EXAMPLES / name / "recipe.yaml"
    for stage, config in resolve(read_recipe(path), flags, source=str(path)):
        assert run_stage(stage, config)


def quick(model: Path) -> list[str]:
    """Flags that make a recipe's training and timing short."""
    return [
        *("--train.model", str(model), "--train.epochs", "1", "--train.device", "cpu"),
        *("--bench.repetitions", "3", "--bench.warmup", "1", "--bench.bootstrap-samples", "100"),
        *("--bench.sequence-lengths", "16", "--bench.batch-sizes", "1", "--bench.startups", "1"),
    ]


def test_a_csv_of_ones_own(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    run_recipe("custom_csv", quick(tiny_bert))
    benchmark = read_benchmark(tmp_path / "tickets.json")
    assert benchmark.task is not None
    assert benchmark.task.labels == ("accounts", "billing", "hardware")
    assert [model.name for model in benchmark.models] == ["tickets-dense", "tickets"]


def test_a_model_of_ones_own(
    tiny_bert: Path,
    reviews: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    files = [
        *("--train.train-file", str(reviews[0]), "--train.validation-file", str(reviews[1])),
        *("--bench.validation-file", str(reviews[1])),
    ]
    run_recipe("hub_model", [*quick(tiny_bert), *files])
    exports = [model.export for model in read_benchmark(tmp_path / "hub.json").models]
    assert [facts and facts.format for facts in exports] == ["dense", "packed", "engine"]


def test_question_answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = save_tiny_model(BertForQuestionAnswering, tmp_path / "model")
    context = "the plot was good and the story was bad"
    words = [model, "--density", 0.2, "--output-dir", tmp_path / "out"]
    words += ["--question", "a film", "--context", context]
    run_script("question_answering.py", words, monkeypatch)
    found, answer = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "2 encoder layers in 1 operator" in found
    assert answer
    assert answer in context


def test_a_model_pruned_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = save_tiny_model(BertForSequenceClassification, tmp_path / "model")
    words = [model, "--density", 0.2, "--output-dir", tmp_path / "out"]
    run_script("pruned_elsewhere.py", words, monkeypatch)
    assert "2 encoder layers in 1 operator; density 0.2" in capsys.readouterr().out
    sizes = [
        (tmp_path / "out" / name / "model.onnx").stat().st_size for name in ("dense", "engine")
    ]
    assert sizes[1] < 0.3 * sizes[0]


def test_the_index_names_every_example():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.name != "README.md":
            assert f"({path.name}" in index, path.name
