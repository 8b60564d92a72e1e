"""The cubic schedules, from a hundred steps to a hundred thousand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError
from smp.schedules import BERT_BASE_PRUNED_WEIGHTS, CubicSchedules, total_steps


def schedules(total=1000, fraction=0.6, steps=None, density=0.1, pruned=BERT_BASE_PRUNED_WEIGHTS):
    return CubicSchedules.of_run(
        density=density,
        lambda_=400.0,
        total_steps=total,
        density_fraction=fraction,
        density_steps=steps,
        pruned_weights=pruned,
    )


@given(st.sampled_from([1, 7, 100, 100_000]), st.floats(0.0, 1.0), st.floats(0.01, 1.0))
def test_density_falls_from_one_and_stays(total, fraction, density):
    made = schedules(total, fraction, density=density)
    values = [made.density_at(round(total * i / 50)) for i in range(51)]
    assert values == sorted(values, reverse=True)
    assert all(density - 1e-12 <= value <= 1.0 for value in values)
    assert values[-1] == pytest.approx(density)
    if made.density_steps > 0:
        assert values[0] == 1.0


@given(st.sampled_from([1, 7, 100, 100_000]))
def test_lambda_grows_from_zero_to_its_value(total):
    made = schedules(total)
    values = [made.lambda_at(round(total * i / 50)) for i in range(51)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == 400.0


def test_values_halfway_computed_by_hand():
    made = schedules(total=1000, fraction=1.0, density=0.2)
    assert made.density_at(500) == pytest.approx(0.2 + 0.8 / 8)
    assert made.lambda_at(500) == pytest.approx(400 * 7 / 8)


def test_steps_count_from_the_start_or_back_from_the_end():
    assert schedules(total=40_000, steps=5250).density_steps == 5250
    assert schedules(total=40_000, steps=-30_000).density_steps == 10_000


@pytest.mark.parametrize("steps", [1001, -1001])
def test_steps_outside_the_run_are_refused(steps):
    with pytest.raises(ConfigurationError, match=r"--density-steps .* lies outside a run of 1000"):
        schedules(total=1000, steps=steps)


def test_a_score_of_a_small_model_is_pushed_as_hard_as_one_of_bert_base():
    # The push on one score of a matrix with n weights among m matrices is lambda / (m n).
    small = schedules(pruned=BERT_BASE_PRUNED_WEIGHTS // 8)
    base_push = 400 / (72 * 768 * 768)
    small_push = small.lambda_ / (36 * 384 * 384)
    assert small_push == pytest.approx(base_push)


@pytest.mark.parametrize(
    ("settings", "processes", "steps"),
    [
        ({"epochs": 1.5}, 1, 6),  # 100 examples make 4 steps of 32
        ({"epochs": 1.0, "gradient_accumulation_steps": 2}, 1, 2),
        ({"epochs": 3.0}, 2, 6),
        ({"steps": 7}, 2, 7),
    ],
)
def test_steps_follow_from_epochs_batches_and_processes(settings, processes, steps):
    config = TrainConfig(
        model="m",
        output_dir=Path("run"),
        train_file=Path("t.csv"),
        validation_file=Path("v.csv"),
        density=0.1,
        **settings,
    )
    assert total_steps(config.resolved(), 100, processes) == steps
