"""The models that the benchmark runs in PyTorch itself."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export import export_run
from export.pytorch import load_pytorch
from pipeline.config import ExportConfig
from pipeline.errors import ModelError
from serve import open_session


@pytest.fixture(scope="module")
def classifier_directory(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT for sequence classification as transformers saves it."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    directory = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny_bert, num_hidden_layers=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    return directory


def inputs(batch: int, length: int) -> dict[str, NDArray[np.int64]]:
    ids = np.arange(batch * length, dtype=np.int64).reshape(batch, length) % 20
    ones = np.ones_like(ids)
    return {"input_ids": ids, "attention_mask": ones, "token_type_ids": np.zeros_like(ids)}


def test_a_run_answers_as_its_export_does(tiny_run: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    export_run(ExportConfig(run=tiny_run, output_dir=directory, format="dense"))
    session = open_session(directory, threads=1)
    run = load_pytorch(str(tiny_run), kind="classification", threads=1, compiled=False)
    texts = session.collate(session.encode(["good film", "a very bad and dull story"]))
    np.testing.assert_allclose(run(texts), session.run(texts), atol=1e-4)


def test_a_hugging_face_model_answers_as_transformers_does(classifier_directory: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(classifier_directory).eval()
    run = load_pytorch(str(classifier_directory), kind="classification", threads=1, compiled=False)
    feeds = inputs(3, 7)
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    np.testing.assert_allclose(run(feeds), expected.logits.numpy(), atol=1e-5)


@pytest.mark.slow
def test_compiled_it_answers_the_same_for_any_shape(
    classifier_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process of its own for each core takes longer to start than this little to compile.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    eager = load_pytorch(
        str(classifier_directory), kind="classification", threads=1, compiled=False
    )
    compiled = load_pytorch(
        str(classifier_directory), kind="classification", threads=1, compiled=True
    )
    for shape in ((2, 5), (3, 9)):
        np.testing.assert_allclose(compiled(inputs(*shape)), eager(inputs(*shape)), atol=1e-4)


def test_each_model_runs_on_its_own_number_of_threads(classifier_directory: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            load_pytorch(
                str(classifier_directory), kind="classification", threads=threads, compiled=False
            )(inputs(1, 4))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_model_without_a_trained_head_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match=r"--pytorch-model .* weights are missing .*classifier\."):
        load_pytorch(str(tiny_bert), kind="classification", threads=1, compiled=False)


def test_what_is_not_there_or_pickled_is_refused(
    classifier_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"--pytorch-model \./nowhere: no such directory"):
        load_pytorch("./nowhere", kind="classification", threads=1, compiled=False)
    pickled = tmp_path / "pickled"
    shutil.copytree(classifier_directory, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="has pickled weights only"):
        load_pytorch(str(pickled), kind="classification", threads=1, compiled=False)


def test_token_ids_that_the_model_does_not_know_are_one_line(classifier_directory: Path) -> None:
    run = load_pytorch(str(classifier_directory), kind="classification", threads=1, compiled=False)
    with pytest.raises(ModelError, match=r"cannot be run \(.*index out of range") as caught:
        run({**inputs(1, 4), "input_ids": np.full((1, 4), 10**6)})
    assert "\n" not in str(caught.value)
