"""A progress bar on a terminal, and one line an evaluation anywhere."""

import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

__all__ = ["TrainingProgress"]

# Steps can take seconds, and an evaluation minutes.
_SPEED_WINDOW_S = 600.0


class TrainingProgress(TrainerCallback):
    """Shows step, loss, density, lambda and remaining time on stderr.

    The loss is the task's, without the regulariser. Where stderr is no terminal it is quiet, but
    for the line that each evaluation gives.

    Args:
        metric: the metric to show of each evaluation.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.console = Console(file=sys.stderr)
        self.bar: Progress | None = None
        self.task: Any = None
        self.predicted = 0
        self.note = ""
        self.begun = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar."""
        self.begun = (state.global_step, time.monotonic())
        if not (state.is_world_process_zero and self.console.is_terminal):
            return
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            speed_estimate_period=_SPEED_WINDOW_S,
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=state.max_steps, note="")
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Show how far an evaluation is."""
        self.predicted += 1
        if self.bar is not None:
            batches = f"{self.predicted}/{len(eval_dataloader)}"
            self.bar.update(self.task, note=f"scoring the validation data, batch {batches}")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show again what was there before the evaluation."""
        self.predicted = 0
        if self.bar is not None:
            self.bar.update(self.task, note=self.note)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kw: Any
    ) -> None:
        """Show loss and density in the bar, and a line for an evaluation."""
        if logs is None or not state.is_world_process_zero:
            return
        if self.bar is not None and "loss" in logs:
            self.note = f"loss {logs.get('task_loss', logs['loss']):.3f}"
            if "density" in logs:
                self.note += f"  density {logs['density']:.3f}"
            if "lambda" in logs:
                self.note += f"  lambda {logs['lambda']:.3g}"
            self.bar.update(self.task, note=self.note)
        score = logs.get(f"eval_{self.metric}")
        if score is not None:
            density = f"density {logs['density']:.3f}, " if "density" in logs else ""
            self.console.print(
                f"step {state.global_step}/{state.max_steps}: {density}"
                f"validation {self.metric} {score:.4f}, loss {logs['eval_loss']:.4f}"
                f"{self._remaining(state)}",
                highlight=False,
                soft_wrap=True,
            )

    def _remaining(self, state: Any) -> str:
        """The time that is left at the speed until now; nothing where that is not known."""
        first, started = self.begun
        done, left = state.global_step - first, state.max_steps - state.global_step
        if done < 1 or left < 1:
            return ""
        seconds = (time.monotonic() - started) * left / done
        return f", about {timedelta(seconds=round(seconds))} left"

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
