"""Learning from a finished run: what is refused, what is kept, what it does to a student."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel

from pipeline.artifacts.classifier import encoder_sha256, load_encoder
from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.run import read_run
from pipeline.artifacts.trained import load_run
from pipeline.config import TrainConfig
from pipeline.data import read_labelled_text
from pipeline.errors import ArtifactError, ConfigurationError, ModelError
from smp.estimate import estimate
from smp.examples import tokenise
from smp.task import read_task
from smp.teacher import Teacher, _cached_logits, open_teacher
from smp.train import train
from smp.trainer import MaskTrainer
from smp.unfinished import unfinished_directory
from tests.export.conftest import make_run
from tests.made_up_data import write_questions, write_reviews

__all__ = ["make_run"]

CPU = torch.device("cpu")


@pytest.fixture
def config(config, tmp_path):
    return dataclasses.replace(config, output_dir=tmp_path / "student", device="cpu")


@pytest.fixture(scope="module")
def fine_tuned(tiny_bert, many_reviews, tmp_path_factory):
    """A fine-tuned run that knows the reviews."""
    directory = tmp_path_factory.mktemp("teacher") / "run"
    manifest = train(
        TrainConfig(
            model=str(tiny_bert),
            output_dir=directory,
            train_file=many_reviews[0],
            validation_file=many_reviews[1],
            method="finetune",
            steps=60,
            learning_rate=2e-2,
            pooling="mean",
            evaluations=1,
            precision="fp32",
            device="cpu",
        )
    )
    assert manifest.metrics["accuracy"] > 0.95
    return directory


def opened(config, directory, **changes):
    config = dataclasses.replace(config, teacher=directory)
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    base_sha256 = encoder_sha256(load_encoder(config.model))
    task = read_task(config)
    task = dataclasses.replace(task, train=dataclasses.replace(task.train, **changes))
    return open_teacher(config, task, 32, tokenizer, base_sha256)


@pytest.mark.parametrize("logits", ["cached", "on-the-fly"])
def test_a_student_learns_what_its_labels_do_not_say(config, fine_tuned, tmp_path, logits):
    wrong = write_reviews(tmp_path / "wrong.csv", 400, seed=1, labels=("1", "0"))
    student = dataclasses.replace(
        config,
        train_file=wrong,
        method="finetune",
        density=None,
        steps=60,
        learning_rate=2e-2,
        pooling="mean",
        evaluations=1,
        teacher=fine_tuned,
        teacher_weight=1.0,
        teacher_logits=logits,
    )
    taught = train(student)
    assert taught.metrics["accuracy"] > 0.8  # the labels would teach it the opposite
    assert taught.training["teacher"] == {
        "id": str(fine_tuned.resolve()),
        "sha256": taught.training["teacher"]["sha256"],
        "metrics": read_run(fine_tuned).metrics,
        "temperature": 2.0,
        "weight": 1.0,
        "logits": logits,
    }
    assert not unfinished_directory(config.output_dir).exists()


def test_live_and_cached_logits_are_the_same(config, fine_tuned, reviews, tmp_path):
    teacher = opened(config, fine_tuned)
    data = read_labelled_text(reviews[0], flag="--train-file")
    examples = tokenise(data, [0] * len(data), teacher.tokenizer, 32)
    cached = _cached_logits(teacher, examples, tmp_path, CPU)
    assert len(cached) == len(examples)
    for index in (0, 17, 95):
        row = {name: torch.tensor([rows[index]]) for name, rows in examples.inputs.items()}
        torch.testing.assert_close(teacher.logits(**row)[0], cached[index], atol=1e-5, rtol=1e-4)


def test_an_interrupted_run_asks_its_teacher_once_and_no_other(
    config, make_run, tmp_path, monkeypatch
):
    teacher = shutil.copytree(make_run(), tmp_path / "teacher")
    config = dataclasses.replace(config, teacher=teacher)
    whole = train(dataclasses.replace(config, output_dir=tmp_path / "whole"))
    compute_loss = MaskTrainer.compute_loss

    def stop(self, *arguments, **options):
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return compute_loss(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MaskTrainer, "compute_loss", stop)
        train(config)
    cache = unfinished_directory(config.output_dir) / "teacher-logits"
    assert len(list(cache.iterdir())) == 1

    tokenizer = (teacher / "tokenizer_config.json").read_bytes()
    (teacher / "tokenizer_config.json").write_bytes(tokenizer + b"\n")
    with pytest.raises(ConfigurationError, match="--resume: what --teacher names has changed"):
        train(dataclasses.replace(config, resume=True))
    (teacher / "tokenizer_config.json").write_bytes(tokenizer)

    def never(*arguments):
        raise AssertionError("the logits are there already")

    monkeypatch.setattr("smp.teacher._ask", never)
    resumed = train(dataclasses.replace(config, resume=True))
    assert resumed.training["resumed_from_step"] > 0
    assert resumed.metrics == whole.metrics
    masks = [read_masks(tmp_path / run / "masks.safetensors") for run in ("student", "whole")]
    assert all(np.array_equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_labels_in_another_order_are_put_into_the_students(config, make_run, reviews):
    directory = make_run(labels=("1", "0"))
    teacher = opened(config, directory)
    batch = teacher.tokenizer(["the film was good"], return_tensors="pt")
    own = load_run(directory, read_run(directory), model=None).classifier(**batch)
    assert torch.equal(teacher.logits(**batch), own.flip(1))


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"labels": ("0", "2")}, {}, "its labels are 0, 2, this run's are 0, 1; give a teacher"),
        ({"labels": ()}, {}, "was trained for regression, this run is classification; give a"),
        ({}, {"text_pair_column": "b"}, "was trained on one text an example, this run has two"),
    ],
)
def test_a_teacher_of_another_task_is_refused(config, make_run, options, changes, message):
    with pytest.raises(ConfigurationError, match=f"--teacher .*run: {message}"):
        opened(config, make_run(**options), **changes)


def test_what_is_no_run_directory_is_refused_before_anything_is_written(config, tmp_path):
    config = dataclasses.replace(config, teacher=tmp_path / "nothing")
    for stage in (train, estimate):
        with pytest.raises(ArtifactError, match=r"--teacher: .*nothing is no run directory; give"):
            stage(config.resolved())
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_teacher_is_refused_by_the_name_of_its_file(config, make_run, tmp_path):
    directory = shutil.copytree(make_run(), tmp_path / "teacher")
    (directory / "masks.safetensors").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"--teacher: .*masks.safetensors is not the file"):
        opened(config, directory)


def test_a_base_model_that_moved_is_found_where_the_students_is_or_refused(
    config, make_run, tiny_bert, tmp_path
):
    model = shutil.copytree(tiny_bert, tmp_path / "base")
    directory = make_run(model=model)
    shutil.rmtree(model)
    assert opened(config, directory) is not None

    other = load_encoder(str(tiny_bert))
    torch.nn.init.zeros_(next(other.parameters()))
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError) as error:
        opened(dataclasses.replace(config, model=str(tmp_path / "other")), directory)
    assert str(error.value).startswith(f"--teacher {directory}: its base model {model}: no such")
    assert str(error.value).endswith("put that model back, or train the teacher again")


@pytest.fixture(scope="module")
def other_words(tiny_bert, make_run, tmp_path_factory):
    """A teacher whose tokenizer numbers the words the other way round."""
    directory = tmp_path_factory.mktemp("other") / "model"
    BertModel.from_pretrained(tiny_bert).save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(directory)
    content = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    words = [word for word in vocabulary if not word.startswith("[")]
    vocabulary |= dict(
        zip(words, sorted((vocabulary[w] for w in words), reverse=True), strict=True)
    )
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return make_run(model=directory)


def test_a_teacher_with_another_tokenizer_reads_the_texts_itself(
    config, other_words, tiny_bert, reviews, tmp_path, monkeypatch
):
    asked = []

    def remember(teacher, examples, directory, device):
        logits = _cached_logits(teacher, examples, directory, device)
        asked.extend((teacher, logits))
        return logits

    monkeypatch.setattr("smp.teacher._cached_logits", remember)
    train(dataclasses.replace(config, teacher=other_words, steps=1, evaluations=1))
    teacher, logits = asked
    data = read_labelled_text(reviews[0], flag="--train-file")
    batch = AutoTokenizer.from_pretrained(other_words)(data.texts[5], return_tensors="pt")
    torch.testing.assert_close(teacher.logits(**batch)[0], logits[5], atol=1e-5, rtol=1e-4)


def test_live_logits_need_the_students_tokenizer(config, other_words):
    live = dataclasses.replace(config, teacher=other_words, teacher_logits="on-the-fly")
    with pytest.raises(
        ConfigurationError, match="has another tokenizer than --model; use --teacher-logits cached"
    ):
        opened(live, other_words)


class _AnswersEveryToken(torch.nn.Module):
    def forward(self, input_ids, attention_mask, **others):
        return torch.stack([input_ids, -input_ids], dim=-1).float()


def test_answers_a_token_are_kept_for_the_real_tokens(config, make_run, reviews, tmp_path):
    run = read_run(make_run())
    run = dataclasses.replace(run, task=dataclasses.replace(run.task, kind="token-classification"))
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    teacher = Teacher(tmp_path, run, "0", tokenizer, _AnswersEveryToken(), (0, 1))
    data = read_labelled_text(reviews[0], flag="--train-file")
    examples = tokenise(data, [0] * len(data), tokenizer, 32)
    for _ in range(2):  # computed, then out of the cache
        logits = _cached_logits(teacher, examples, tmp_path / "cache", CPU)
        for ids, row in zip(examples.inputs["input_ids"], logits, strict=True):
            assert row.tolist() == [[i, -i] for i in ids]


def test_a_broken_cache_is_refused(config, make_run, reviews, tmp_path):
    teacher = opened(config, make_run())
    data = read_labelled_text(reviews[0], flag="--train-file")
    examples = tokenise(data, [0] * len(data), teacher.tokenizer, 32)
    _cached_logits(teacher, examples, tmp_path, CPU)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match="is truncated or corrupt; remove it"):
        _cached_logits(teacher, examples, tmp_path, CPU)


@pytest.mark.parametrize("kind", ["question", "tagging"])
def test_answers_for_every_token_are_learned_cached_and_live_alike(
    request, word_bert, tmp_path, kind
):
    teacher = request.getfixturevalue(f"{kind}_run")
    files = request.getfixturevalue({"question": "questions", "tagging": "tagged_words"}[kind])
    config = TrainConfig(
        model=str(word_bert),
        output_dir=tmp_path / "alone",
        train_file=files[0],
        validation_file=files[1],
        density=0.5,
        steps=6,
        batch_size=16,
        max_length=32,
        stride=8,
        evaluations=1,
        precision="fp32",
        device="cpu",
    )
    masks = {}
    train(config)
    masks["alone"] = read_masks(config.output_dir / "masks.safetensors")
    for logits in ("cached", "on-the-fly"):
        output = tmp_path / logits
        taught = dataclasses.replace(config, output_dir=output, teacher=teacher)
        train(dataclasses.replace(taught, teacher_logits=logits, teacher_weight=1.0))
        masks[logits] = read_masks(output / "masks.safetensors")

    def difference(one, other):
        return sum(np.count_nonzero(masks[one][name] != masks[other][name]) for name in masks[one])

    assert difference("cached", "on-the-fly") < 0.1 * difference("cached", "alone")


def test_a_teacher_that_always_answers_is_refused_where_questions_may_have_no_answer(
    word_bert, question_run, tmp_path
):
    config = TrainConfig(
        model=str(word_bert),
        output_dir=tmp_path / "run",
        train_file=write_questions(tmp_path / "t.json", 12, seed=1, no_answer=True),
        validation_file=write_questions(tmp_path / "v.json", 12, seed=2, no_answer=True),
        density=0.5,
        teacher=question_run,
    )
    with pytest.raises(ConfigurationError, match="all with an answer, this run's are some without"):
        train(config)


@pytest.mark.parametrize(("kind", "method"), [("question", "soft-movement"), ("tagging", "smp-s")])
def test_a_teacher_goes_with_patterns_starts_checkpointing_and_a_stop(
    request, word_bert, tmp_path, monkeypatch, kind, method
):
    files = request.getfixturevalue({"question": "questions", "tagging": "tagged_words"}[kind])
    config = TrainConfig(
        model=str(word_bert),
        output_dir=tmp_path / "run",
        train_file=files[0],
        validation_file=files[1],
        method=method,
        pattern="2:4",
        density=0.3,
        score_init="fisher",
        gradient_checkpointing=True,
        teacher=request.getfixturevalue(f"{kind}_run"),
        steps=6,
        batch_size=16,
        max_length=32,
        stride=8,
        evaluations=3,
        precision="fp32",
        device="cpu",
    )
    whole = dataclasses.replace(config, output_dir=tmp_path / "whole")
    train(whole)

    def stop(self, logs, start_time=None):
        if self.state.global_step > 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MaskTrainer, "log", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert train(dataclasses.replace(config, resume=True)).training["resumed_from_step"] == 2
    masks, expected = (
        read_masks(run / "masks.safetensors") for run in (config.output_dir, whole.output_dir)
    )
    for name, mask in masks.items():
        assert np.array_equal(mask, expected[name])
        assert mask.reshape(-1, 4).sum(axis=1).max() <= 2
