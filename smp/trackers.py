"""Trainer's own logging integrations: which of them can be used, and where they write to."""

from collections.abc import Sequence
from pathlib import Path

from transformers import Trainer
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from pipeline.closest import closest
from pipeline.errors import ConfigurationError, MachineError, first_line

__all__ = ["check_trackers", "place_tensorboard_logs", "tensorboard_directory"]


def check_trackers(names: Sequence[str]) -> None:
    """Check before a run starts that Trainer has these integrations, and can use them.

    Raises:
        ConfigurationError: it has no such integration.
        MachineError: the integration's package is missing.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = sorted(INTEGRATION_TO_CALLBACK)
            meant = closest(name, known)
            hint = f"; did you mean {meant}?" if meant else ""
            raise ConfigurationError(
                f"--report-to {name}: Trainer has no such integration{hint} "
                f"(it has {', '.join(known)})"
            )
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            raise MachineError(
                f"--report-to {name}: {first_line(error)} Or leave the flag away."
            ) from error


def tensorboard_directory(output_dir: Path) -> Path:
    """Where a run's TensorBoard logs go: beside it, since they outlast its checkpoints."""
    return output_dir.with_name(output_dir.name + ".tensorboard")


def place_tensorboard_logs(trainer: Trainer, output_dir: Path) -> None:
    """Have TensorBoard's integration write beside a run, unless TENSORBOARD_LOGGING_DIR is set."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(tensorboard_directory(output_dir))
