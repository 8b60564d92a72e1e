"""The pruning methods: what ranks the weights, how the density is shared, and what is trained.

smp-s and smp-l are Static Model Pruning's. The others are the baselines of the literature:
magnitude pruning (Han et al., 2015; gradually: Zhu and Gupta, 2017), movement pruning and soft
movement pruning (Sanh et al., *Movement Pruning*, 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.artifacts.run import trains_weights
from pipeline.config import TrainConfig
from smp.masking import local_counts, score_based_counts
from smp.patterns import PATTERNS, WeightPattern
from smp.regulariser import mean_sigmoids

__all__ = ["Allotment", "GlobalThreshold", "Local", "PruningMethod", "ScoreBased", "pruning_method"]


class Allotment(Protocol):
    """How the matrices share the density."""

    def unit_masks(
        self, rankings: Sequence[Tensor], density: float, pattern: WeightPattern
    ) -> list[Tensor]:
        """Choose the units that remain.

        Args:
            rankings: float [out_features, in_features] for each matrix of one type.
            density: share of the weights that remains, in (0, 1].
            pattern: which weights remain together.

        Returns:
            bool [units] for each matrix.
        """

    @property
    def across_types(self) -> bool:
        """Whether matrices of all types share the density, and not those of each type."""


@dataclass(frozen=True)
class Local:
    """Every matrix keeps the same share."""

    across_types = False

    def unit_masks(
        self, rankings: Sequence[Tensor], density: float, pattern: WeightPattern
    ) -> list[Tensor]:
        """See :class:`Allotment`."""
        units = [pattern.unit_scores(ranking) for ranking in rankings]
        counts = local_counts([len(scores) for scores in units], density)
        return pattern.select(units, counts)


@dataclass(frozen=True)
class ScoreBased:
    """The matrices of a type share the density by the mean sigmoid of their scores (SMP-S).

    Attributes:
        temperature: the scores are divided by it before the sigmoid.
        redistribute: whether a share beyond what a matrix can keep goes to the others.
    """

    temperature: float = 1.0
    redistribute: bool = True
    across_types = False

    def unit_masks(
        self, rankings: Sequence[Tensor], density: float, pattern: WeightPattern
    ) -> list[Tensor]:
        """See :class:`Allotment`."""
        units = [pattern.unit_scores(ranking) for ranking in rankings]
        means = mean_sigmoids(rankings, self.temperature)
        # Before the density falls below what the pattern lets remain, the pattern cannot hold.
        largest = pattern.largest_density if density <= pattern.largest_density else 1.0
        counts = score_based_counts(
            [len(scores) for scores in units],
            means.tolist(),
            density,
            redistribute=self.redistribute,
            largest=largest,
        )
        return pattern.select(units, counts)


@dataclass(frozen=True)
class GlobalThreshold:
    """One threshold over the scores of all matrices, where it leaves exactly the density."""

    across_types = True

    def unit_masks(
        self, rankings: Sequence[Tensor], density: float, pattern: WeightPattern
    ) -> list[Tensor]:
        """See :class:`Allotment`."""
        units = [pattern.unit_scores(ranking) for ranking in rankings]
        sizes = [len(scores) for scores in units]
        (count,) = local_counts([sum(sizes)], density)
        (chosen,) = pattern.select([torch.cat(units)], [count])
        return list(torch.split(chosen, sizes))


@dataclass(frozen=True)
class PruningMethod:
    """One method.

    Attributes:
        allotment: how the matrices share the density.
        pattern: which weights remain together.
        learns_scores: whether learned scores rank the weights, and not their own magnitudes.
        trains_weights: whether the encoder's weights are trained, too.
        regularised: whether the loss has the mean sigmoid of the scores as a penalty.
    """

    allotment: Allotment
    pattern: WeightPattern = PATTERNS["unstructured"]
    learns_scores: bool = True
    trains_weights: bool = False
    regularised: bool = True


def pruning_method(config: TrainConfig) -> PruningMethod:
    """The method that a configuration asks for; it prunes (finetune has none)."""
    allotments: dict[str, Allotment] = {
        "smp-s": ScoreBased(config.score_temperature, config.overflow == "redistribute"),
        "soft-movement": GlobalThreshold(),
    }
    return PruningMethod(
        allotment=allotments.get(config.method, Local()),
        pattern=PATTERNS[config.pattern],
        learns_scores=config.learns_scores,
        trains_weights=trains_weights(config.method),
        regularised=config.method in ("smp-s", "smp-l", "soft-movement"),
    )
