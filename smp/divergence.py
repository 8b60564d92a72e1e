"""Early signs that a run goes wrong: warnings with advice, and an end where numbers break."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from pipeline.artifacts.run import TaskKind, is_by_token
from pipeline.errors import ConfigurationError
from pipeline.intervals import share_estimate
from smp.examples import Examples
from smp.schedules import CubicSchedules

__all__ = ["Chance", "DivergenceWatch", "chance_level", "saturated_share"]

_Z = NormalDist().inv_cdf(0.975)
# sigmoid(S) > 0.99 or < 0.01.
_SATURATED = math.log(99.0)
_SATURATED_SHARE = 0.5
# In the first fifth of a run the scores are still finding their order.
_SETTLED = 0.2
# Below this share of the steps at constant density, a run ends before it has recovered.
_RECOVERY = 0.1
_LOSSES = ("loss", "eval_loss", "train_loss")


@dataclass(frozen=True)
class Chance:
    """What a model gets that answers without looking at its input.

    Attributes:
        score: the largest value of the metric that is not told from chance on so many examples.
        loss: the smallest loss of a constant answer.
    """

    score: float
    loss: float


def chance_level(kind: TaskKind, metric: str, examples: Examples) -> Chance | None:
    """What is chance for a task; None where that is not known.

    For accuracy, the share of the most frequent class, up to the end of its 95 % score interval
    (Wilson 1927); for correlations, zero, up to 1.96 / sqrt(n), the point where they differ from it
    at 5 % (for Matthews' that is the chi-squared test of a two by two table).

    Args:
        kind: the kind of the task; where every token is judged, chance is not known.
        metric: a name in :mod:`pipeline.metrics`.
        examples: the validation data.
    """
    if is_by_token(kind):
        return None
    targets = examples.targets
    if kind == "classification":
        counts = torch.bincount(targets)
        counts = counts[counts > 0]
        shares = counts / len(targets)
        loss = float(-(shares * shares.log()).sum())
    else:
        loss = float(targets.float().var(correction=0))
    if metric == "accuracy":
        return Chance(share_estimate(int(counts.max()), len(targets)).high, loss)
    if metric in ("matthews", "pearson", "spearman"):
        return Chance(_Z / math.sqrt(len(targets)), loss)
    return None


@torch.no_grad()
def saturated_share(scores: Iterable[Tensor]) -> float:
    """The share of scores with a sigmoid above 0.99 or below 0.01, in [0, 1]."""
    scores = list(scores)
    saturated = sum(int((item.abs() > _SATURATED).sum()) for item in scores)
    return saturated / max(1, sum(item.numel() for item in scores))


class DivergenceWatch(TrainerCallback):
    """Warns on stderr of the first process; stops all of them where a number is not finite.

    Args:
        metric: the metric that the task is judged by.
        chance: what is chance for it, None where that is not known.
        scores: the trained scores, none for methods without.
        schedules: the run's density, None for methods that do not prune.
        regularised: whether the sigmoid of the scores is part of the method.
        other_start: whether the scores could start from magnitude, and do not.
    """

    def __init__(
        self,
        metric: str,
        chance: Chance | None,
        scores: Iterable[Tensor],
        schedules: CubicSchedules | None,
        *,
        regularised: bool = True,
        other_start: bool = False,
    ) -> None:
        self.metric = metric
        self.chance = chance
        self.scores = list(scores)
        self.schedules = schedules
        self.regularised = regularised
        self.other_start = other_start
        self.given: set[str] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Warn of a density that falls until the end."""
        if self.schedules is None or self.schedules.density == 1.0:
            return
        left = state.max_steps - self.schedules.density_steps
        if left < _RECOVERY * state.max_steps:
            self._warn(
                state,
                f"the density falls until step {self.schedules.density_steps} of "
                f"{state.max_steps}, which leaves no time to recover from it; by default 0.4 of "
                "the run are left: lower --density-fraction or --density-steps, or train longer",
            )

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kw: Any
    ) -> None:
        """Stop at a loss that is not finite."""
        for name in _LOSSES:
            if logs is not None and not math.isfinite(logs.get(name, 0.0)):
                _stop(args, state, f"the loss is {logs[name]}")

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop at scores that are not finite, before masks are made of them."""
        if self.scores and not torch.nn.utils.get_total_norm(self.scores).isfinite():
            _stop(args, state, "some scores are not finite")

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **kw: Any
    ) -> None:
        """Warn of saturated scores and of a validation score at chance."""
        share = saturated_share(self.scores) if self.regularised else 0.0
        if share > _SATURATED_SHARE:
            self._warn(
                state,
                f"{share:.0%} of the scores are saturated (sigmoid above 0.99 or below 0.01), so "
                "that the regulariser cannot move them and the layers' shares say little; lower "
                "--learning-rate, --lambda or --score-init-scale",
                kind="saturated scores",
            )
        self._judge(state, metrics or {})

    def _judge(self, state: Any, metrics: dict[str, Any]) -> None:
        """Warn of a validation score at chance, if it was above or the loss says the same."""
        score = metrics.get(f"eval_{self.metric}")
        if self.chance is None or score is None or state.global_step < _SETTLED * state.max_steps:
            return
        if score > self.chance.score:
            return
        earlier = [logs.get(f"eval_{self.metric}") for logs in state.log_history]
        best = max((value for value in earlier if value is not None), default=-math.inf)
        if best > self.chance.score:
            found = f"fell from {best:.3f} to {score:.3f}, which is chance"
            advice = "density, scores or weights moved too fast"
        elif metrics.get("eval_loss", -math.inf) >= 0.99 * self.chance.loss:
            found = f"is {score:.3f}, still chance"
            advice = "nothing has been learned"
        else:
            return
        self._warn(
            state,
            f"step {state.global_step}: validation {self.metric} {found}; {advice}: lower "
            "--learning-rate, or train longer"
            f"{', or start from --score-init magnitude' if self.other_start else ''}",
            kind="chance",
        )

    def _warn(self, state: Any, text: str, *, kind: str = "") -> None:
        if state.is_world_process_zero and (kind or text) not in self.given:
            self.given.add(kind or text)
            print(f"warning: {text}", file=sys.stderr)


def _stop(args: Any, state: Any, found: str) -> None:
    directory = Path(args.output_dir)
    kept = ""
    if any(directory.glob("checkpoint-*")):
        kept = f" (the checkpoints before that are kept in {directory}; remove it first)"
    raise ConfigurationError(
        f"training broke down: {found} at step {state.global_step} of {state.max_steps}; train "
        f"again with a lower --learning-rate, or with --precision fp32{kept}"
    )
