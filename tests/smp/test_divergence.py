"""What is told from chance, which states are warned of, and what stops a run."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pipeline.errors import ConfigurationError
from smp.divergence import Chance, DivergenceWatch, chance_level, saturated_share
from smp.examples import Examples
from smp.schedules import CubicSchedules
from smp.train import train
from smp.unfinished import unfinished_directory

CHANCE = Chance(score=0.55, loss=math.log(2))


def state_at(step, *, steps=100, earlier=(), first=True):
    history = [{"eval_accuracy": score} for score in earlier]
    return SimpleNamespace(
        is_world_process_zero=first, max_steps=steps, global_step=step, log_history=history
    )


def examples_of(targets):
    return Examples({"input_ids": [[1]] * len(targets)}, targets, truncated=0)


def watch_of(chance=CHANCE, scores=(), schedules=None):
    return DivergenceWatch("accuracy", chance, scores, schedules)


def judged(watch, state, score, loss, capsys):
    metrics = {"eval_accuracy": score, "eval_loss": loss}
    watch.on_evaluate(None, state, None, metrics=metrics)
    return capsys.readouterr().err


def test_chance_is_the_largest_class_and_what_is_not_told_from_it():
    targets = torch.tensor([0] * 30 + [1] * 70)
    chance = chance_level("classification", "accuracy", examples_of(targets))
    # Wilson's interval of 70 of 100 ends at 0.7810.
    assert chance.score == pytest.approx(0.7810, abs=1e-4)
    assert chance.loss == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7))
    three = chance_level("classification", "accuracy", examples_of(torch.arange(99) % 3))
    assert three.loss == pytest.approx(math.log(3))


def test_chance_of_correlations_is_zero_and_shrinks_with_the_examples():
    targets = torch.tensor([0.0, 1.0, 2.0, 3.0] * 25)
    chance = chance_level("regression", "pearson", examples_of(targets))
    assert chance.score == pytest.approx(0.196, abs=1e-3)
    assert chance.loss == pytest.approx(1.25)


def test_where_chance_is_not_known_nothing_is_said(capsys):
    targets = torch.tensor([0, 1] * 10)
    assert chance_level("classification", "f1", examples_of(targets)) is None
    assert chance_level("question-answering", "f1", object()) is None
    assert judged(watch_of(chance=None), state_at(50), 0.0, 9.0, capsys) == ""


def test_a_fall_to_chance_is_warned_of_once(capsys):
    watch = watch_of()
    state = state_at(40, earlier=(0.5, 0.82))
    said = judged(watch, state, 0.51, 0.5, capsys)
    assert said.startswith("warning: step 40: validation accuracy fell from 0.820 to 0.510")
    assert "lower --learning-rate" in said
    assert judged(watch, state, 0.51, 0.5, capsys) == ""


def test_never_above_chance_is_warned_of_where_the_loss_says_the_same(capsys):
    assert judged(watch_of(), state_at(40), 0.5, 0.60, capsys) == ""
    assert "is 0.500, still chance" in judged(watch_of(), state_at(40), 0.5, 0.70, capsys)


def test_above_chance_and_early_in_a_run_nothing_is_said(capsys):
    assert judged(watch_of(), state_at(40, earlier=(0.9,)), 0.56, 0.9, capsys) == ""
    assert judged(watch_of(), state_at(19, earlier=(0.9,)), 0.5, 0.9, capsys) == ""


def test_only_the_first_process_warns(capsys):
    assert judged(watch_of(), state_at(40, earlier=(0.9,), first=False), 0.5, 1.0, capsys) == ""


def test_saturated_scores_are_warned_of_once(capsys):
    edge = math.log(99)
    scores = [torch.tensor([edge + 0.01, -edge - 0.01]), torch.tensor([edge - 0.01, 0.0])]
    assert saturated_share(scores) == 0.5
    assert judged(watch_of(scores=scores), state_at(10), 0.9, 0.1, capsys) == ""
    scores[1][1] = -9.0
    watch = watch_of(scores=scores)
    said = judged(watch, state_at(10), 0.9, 0.1, capsys)
    assert said.startswith("warning: 75% of the scores are saturated")
    scores[1][0] = -9.0
    assert judged(watch, state_at(20), 0.9, 0.1, capsys) == ""


@pytest.mark.parametrize("other", [True, False])
def test_the_magnitude_start_is_advised_to_those_that_have_another(capsys, other):
    watch = DivergenceWatch("accuracy", CHANCE, (), None, other_start=other)
    assert ("--score-init magnitude" in judged(watch, state_at(90), 0.5, 0.7, capsys)) == other


def test_scores_that_pass_no_sigmoid_may_be_as_large_as_they_like(capsys):
    scores = [torch.full((2, 2), 9.0)]
    watch = DivergenceWatch("accuracy", CHANCE, scores, None, regularised=False)
    assert judged(watch, state_at(10), 0.9, 0.1, capsys) == ""


@pytest.mark.parametrize(("reached", "warned"), [(91, True), (100, True), (90, False), (0, False)])
def test_a_density_that_falls_until_the_end_is_warned_of(capsys, reached, warned):
    schedules = CubicSchedules(0.1, reached, lambda_=1.0, total_steps=100)
    watch_of(schedules=schedules).on_train_begin(None, state_at(0), None)
    assert ("leaves no time to recover" in capsys.readouterr().err) == warned


@pytest.mark.parametrize("name", ["loss", "eval_loss", "train_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, name, value):
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"the loss is (nan|inf) at step 7 .*[^)]$"):
        watch_of().on_log(arguments, state_at(7), None, logs={name: value})
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(ConfigurationError, match=r"checkpoints before that are kept in .*\)$"):
        watch_of().on_log(arguments, state_at(7), None, logs={name: value})


@pytest.fixture
def config(config):
    return replace(config, evaluations=4, device="cpu")


def test_a_run_that_breaks_down_keeps_its_last_checkpoint_and_leaves_no_run(config, monkeypatch):
    from smp.trainer import MaskTrainer

    compute_loss = MaskTrainer.compute_loss

    def broken_loss(self, *arguments, **options):
        loss = compute_loss(self, *arguments, **options)
        return loss * math.nan if self.state.global_step == 4 and self.model.training else loss

    monkeypatch.setattr(MaskTrainer, "compute_loss", broken_loss)
    with pytest.raises(ConfigurationError, match="some scores are not finite at step 5 of 12"):
        train(config)
    partial = unfinished_directory(config.output_dir)
    kept = [path.name for path in partial.glob("checkpoint-*")]
    assert kept == ["checkpoint-3"]
    assert not config.output_dir.exists()


def test_a_real_run_whose_scores_run_away_is_warned_of(config, capfd):
    train(replace(config, learning_rate=30.0, density_fraction=1.0))
    said = capfd.readouterr().err
    assert said.count("of the scores are saturated") == 1
    assert said.count("the density falls until step 12 of 12") == 1
