"""How density and regulariser change over a run (SMP, section 3.3 and appendix A)."""

import math
from dataclasses import dataclass

from pipeline.config import TrainConfig
from pipeline.errors import ConfigurationError

__all__ = ["BERT_BASE_PRUNED_WEIGHTS", "CubicSchedules", "total_steps"]

BERT_BASE_PRUNED_WEIGHTS = 84_934_656


def total_steps(config: TrainConfig, examples: int, processes: int = 1) -> int:
    """Optimiser steps of a run; the last one of an epoch may have fewer examples.

    Args:
        config: a resolved configuration: it has epochs or steps.
        examples: training examples.
        processes: data-parallel processes, each with batches of its own.
    """
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    examples_a_step = config.batch_size * config.gradient_accumulation_steps * processes
    return math.ceil(config.epochs * math.ceil(examples / examples_a_step))


@dataclass(frozen=True)
class CubicSchedules:
    """The density falls, and the regulariser grows, with the cube of what is left of the run.

    Attributes:
        density: the density that is reached.
        density_steps: N', the step at which it is reached; 0 for from the start.
        lambda_: the regulariser's final weight.
        total_steps: N, all optimiser steps.
    """

    density: float
    density_steps: int
    lambda_: float
    total_steps: int

    def density_at(self, step: int) -> float:
        """v_t = v + (1 - v)(1 - t/N')^3 before step N', v after it.

        Args:
            step: finished optimiser steps, from 0.
        """
        if step >= self.density_steps:
            return self.density
        left = 1.0 - step / self.density_steps
        return self.density + (1.0 - self.density) * left**3

    def lambda_at(self, step: int) -> float:
        """lambda_t = lambda (1 - (1 - t/N)^3)."""
        left = 1.0 - min(1.0, step / self.total_steps)
        return self.lambda_ * (1.0 - left**3)

    @classmethod
    def of_run(
        cls,
        *,
        density: float,
        lambda_: float,
        total_steps: int,
        density_fraction: float,
        density_steps: int | None,
        pruned_weights: int,
    ) -> "CubicSchedules":
        """Resolve fractions and scale lambda.

        The regulariser is a mean over all scores, so at a given lambda a small model's score is
        pushed harder than a large model's. lambda is scaled by the model's pruned weights over
        BERT-base's 84,934,656, so that the same value pushes a score equally hard everywhere,
        and the paper's 400 keeps its meaning on BERT-base.

        Args:
            density: the density to reach.
            lambda_: on BERT-base's scale.
            total_steps: optimiser steps of the run.
            density_fraction: share of the run at which the density is reached.
            density_steps: in its place, the step; negative counts back from the end.
            pruned_weights: number of scores of the model.

        Raises:
            ConfigurationError: ``density_steps`` lies outside the run.
        """
        reached = round(density_fraction * total_steps)
        if density_steps is not None:
            reached = density_steps if density_steps >= 0 else total_steps + density_steps
            if not 0 <= reached <= total_steps:
                raise ConfigurationError(
                    f"--density-steps {density_steps} lies outside a run of {total_steps} steps; "
                    "give fewer, train longer, or use --density-fraction"
                )
        scale = pruned_weights / BERT_BASE_PRUNED_WEIGHTS
        return cls(density, reached, lambda_ * scale, total_steps)
