"""Progress is quiet where nobody watches, but for one line an evaluation."""

from types import SimpleNamespace

from smp.progress import TrainingProgress


def test_one_line_an_evaluation_and_no_bar_without_a_terminal(capsys):
    progress = TrainingProgress("accuracy")
    state = SimpleNamespace(is_world_process_zero=True, max_steps=20, global_step=10)
    progress.on_train_begin(None, state, None)
    progress.on_step_end(None, state, None)
    progress.on_log(None, state, None, logs={"loss": 0.5})
    assert capsys.readouterr().err == ""
    logs = {"eval_accuracy": 0.75, "eval_loss": 0.6, "density": 0.4}
    progress.on_log(None, state, None, logs=logs)
    progress.on_train_end(None, state, None)
    assert capsys.readouterr().err.splitlines() == [
        "step 10/20: density 0.400, validation accuracy 0.7500, loss 0.6000"
    ]


def test_on_a_terminal_the_bar_shows_how_far_an_evaluation_is(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    progress = TrainingProgress("accuracy")
    state = SimpleNamespace(is_world_process_zero=True, max_steps=20, global_step=10)
    progress.on_train_begin(None, state, None)
    for _ in range(2):
        progress.on_prediction_step(None, state, None, eval_dataloader=range(7))
    progress.bar.refresh()
    assert "scoring the validation data, batch 2/7" in capsys.readouterr().err
    progress.on_evaluate(None, state, None)
    progress.bar.refresh()
    assert "scoring" not in capsys.readouterr().err
    logs = {"loss": 150.25, "task_loss": 0.25, "density": 0.4, "lambda": 312.5}
    progress.on_log(None, state, None, logs=logs)
    progress.on_prediction_step(None, state, None, eval_dataloader=range(7))
    progress.on_evaluate(None, state, None)
    progress.bar.refresh()
    assert "loss 0.250  density 0.400  lambda 312" in capsys.readouterr().err
    progress.on_train_end(None, state, None)


def test_a_line_says_how_long_the_rest_takes_at_the_speed_until_then(capsys, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("smp.progress.time.monotonic", lambda: now)
    progress = TrainingProgress("accuracy")
    # A run that goes on from step 10.
    state = SimpleNamespace(is_world_process_zero=True, max_steps=100, global_step=10)
    progress.on_train_begin(None, state, None)
    now += 90.0
    state.global_step = 40
    logs = {"eval_accuracy": 0.75, "eval_loss": 0.6}
    progress.on_log(None, state, None, logs=logs)
    assert capsys.readouterr().err.endswith("loss 0.6000, about 0:03:00 left\n")
    state.global_step = 100
    progress.on_log(None, state, None, logs=logs)
    assert capsys.readouterr().err.endswith("loss 0.6000\n")


def test_only_the_first_process_speaks(capsys):
    progress = TrainingProgress("accuracy")
    state = SimpleNamespace(is_world_process_zero=False, max_steps=20, global_step=10)
    progress.on_log(None, state, None, logs={"eval_accuracy": 0.75, "eval_loss": 0.6})
    assert capsys.readouterr().err == ""
