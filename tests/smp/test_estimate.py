"""The estimate of --dry-run agrees with the run on all that can be known before."""

import json
import shutil
from dataclasses import replace

import pytest

from pipeline.artifacts.classifier import load_encoder
from pipeline.errors import DataError, ModelError
from smp.backbone import load_tokenizer
from smp.estimate import estimate
from smp.task import read_task, tokenise_task
from smp.train import train


@pytest.fixture
def config(config):
    return replace(config, steps=None, epochs=1.3, batch_size=20, evaluations=1).resolved()


def test_steps_and_weights_are_those_of_the_run(config):
    plan = estimate(config)
    assert not config.output_dir.exists()
    manifest = train(config)
    assert plan.steps == manifest.training["steps"]
    assert plan.examples == manifest.train_data.rows
    assert plan.pruned_weights == sum(matrix.size for matrix in manifest.matrices.values())
    assert plan.remaining_weights == pytest.approx(
        sum(matrix.kept for matrix in manifest.matrices.values()), abs=12
    )
    assert plan.seconds > 0
    assert plan.memory_bytes > 16 * plan.pruned_weights


@pytest.mark.parametrize(
    ("method", "scores", "weights"),
    [
        ("smp-s", True, False),
        ("finetune", False, True),
        ("magnitude", False, True),
        ("movement", True, True),
    ],
)
def test_what_is_trained_and_written_depends_on_the_method(
    config, tiny_bert, method, scores, weights
):
    density = None if method == "finetune" else 0.3
    plan = estimate(replace(config, method=method, density=density))
    total = load_encoder(str(tiny_bert)).num_parameters()
    assert (f"{plan.pruned_weights:,} scores" in plan.trained) == scores
    assert (f"{total:,} weights" in plan.trained) == weights
    mask_bytes = 0 if method == "finetune" else plan.pruned_weights // 8
    assert plan.run_bytes == weights * 4 * total + mask_bytes


def test_a_pattern_that_does_not_fit_is_refused(config, tiny_bert, tmp_path):
    odd = shutil.copytree(tiny_bert, tmp_path / "odd")
    settings = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps({**settings, "intermediate_size": 66}))
    with pytest.raises(ModelError, match=r"--pattern 2:4: .* has 66 inputs, which 4 does not"):
        estimate(replace(config, model=str(odd), pattern="2:4"))


def test_gradient_checkpointing_and_accumulation_need_less_memory(config):
    plan = estimate(config)
    checkpointed = estimate(replace(config, gradient_checkpointing=True))
    accumulated = estimate(replace(config, batch_size=10, gradient_accumulation_steps=2))
    assert checkpointed.memory_bytes < plan.memory_bytes
    assert accumulated.memory_bytes < plan.memory_bytes


def test_a_second_moment_a_matrix_needs_four_bytes_less_a_score(config):
    plan, shared = estimate(config), estimate(replace(config, second_moment="matrix"))
    assert plan.memory_bytes - shared.memory_bytes == 4 * plan.pruned_weights


def test_windows_are_counted_from_words(config, word_bert, questions):
    config = replace(config, model=str(word_bert), train_file=questions[0])
    config = replace(config, validation_file=questions[1], max_length=24, stride=4, epochs=20)
    windows, _ = tokenise_task(read_task(config), load_tokenizer(config.model, revision=None), 24)
    assert len(windows) > 100
    estimated = estimate(config).steps * config.batch_size / 20
    # These words are one token each, and the estimate takes 1.4.
    assert len(windows) <= estimated < 2 * len(windows)


def test_sentences_are_examples(config, tagged_words):
    config = replace(config, train_file=tagged_words[0], validation_file=tagged_words[1])
    assert estimate(config).steps == 7
    assert estimate(config).examples == 96


def test_bad_input_is_refused_as_by_the_run(config, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        estimate(replace(config, train_file=tmp_path / "missing.csv"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        estimate(replace(config, model=str(tmp_path)))


def test_a_teacher_takes_time_and_a_live_one_memory(config, tiny_run, monkeypatch):
    monkeypatch.setattr("smp.estimate._speed", lambda device, precision: 1e9)
    alone = estimate(config)
    cached = estimate(replace(config, teacher=tiny_run))
    live = estimate(replace(config, teacher=tiny_run, teacher_logits="on-the-fly"))
    assert alone.seconds < cached.seconds < live.seconds
    assert alone.memory_bytes == cached.memory_bytes < live.memory_bytes
