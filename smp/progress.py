"""A progress bar on a terminal, and one line an evaluation anywhere."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

__all__ = ["TrainingProgress"]


class TrainingProgress(TrainerCallback):
    """Shows step, density, loss and remaining time on stderr.

    Where stderr is no terminal it is quiet, but for the line that each evaluation gives.

    Args:
        metric: the metric to show of each evaluation.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.console = Console(file=sys.stderr)
        self.bar: Progress | None = None
        self.task: Any = None
        self.predicted = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar."""
        if not (state.is_world_process_zero and self.console.is_terminal):
            return
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
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
        """Take away what was shown of the evaluation."""
        self.predicted = 0
        if self.bar is not None:
            self.bar.update(self.task, note="")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kw: Any
    ) -> None:
        """Show loss and density in the bar, and a line for an evaluation."""
        if logs is None or not state.is_world_process_zero:
            return
        if self.bar is not None and "loss" in logs:
            note = f"loss {logs['loss']:.3f}"
            if "density" in logs:
                note += f"  density {logs['density']:.3f}"
            if "lambda" in logs:
                note += f"  lambda {logs['lambda']:.0f}"
            self.bar.update(self.task, note=note)
        score = logs.get(f"eval_{self.metric}")
        if score is not None:
            density = f"density {logs['density']:.3f}, " if "density" in logs else ""
            self.console.print(
                f"step {state.global_step}/{state.max_steps}: {density}"
                f"validation {self.metric} {score:.4f}, loss {logs['eval_loss']:.4f}",
                highlight=False,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
