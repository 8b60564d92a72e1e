"""Which weights remain together: single ones, n of m neighbours, or whole blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.artifacts.run import Pattern
from pipeline.errors import ModelError
from smp.architectures import PrunedMatrix
from smp.selection import top_k_mask, top_k_masks

__all__ = ["PATTERNS", "WeightPattern", "check_shapes"]


@dataclass(frozen=True)
class WeightPattern:
    """A pattern of the weights that remain. They are chosen by unit: one weight, or one block.

    Attributes:
        kept: of ``group`` neighbours along the input, so many may remain.
        group: neighbours that share this limit; 1 for no limit.
        block: outputs of a unit, one below the other at one input; 1 for single weights.
    """

    kept: int = 1
    group: int = 1
    block: int = 1

    @property
    def largest_density(self) -> float:
        """The largest density at which the pattern can hold."""
        return self.kept / self.group

    def unit_scores(self, scores: Tensor) -> Tensor:
        """The score of each unit: its weight's, or the sum over its block.

        Args:
            scores: float [out_features, in_features].

        Returns:
            float [units], row-major.
        """
        scores = scores.detach()
        if self.block > 1:
            outputs, inputs = scores.shape
            scores = scores.reshape(outputs // self.block, self.block, inputs).sum(dim=1)
        return scores.reshape(-1)

    def select(self, units: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """Mark exactly so many units of each matrix, as :meth:`_select_of` does.

        Args:
            units: float32 [units] of each, all of one size.
            counts: how many remain of each.

        Returns:
            bool [units] of each.
        """
        if self.group == 1:
            return top_k_masks(units, counts)
        return [self._select_of(each, count) for each, count in zip(units, counts, strict=True)]

    def _select_of(self, units: Tensor, count: int) -> Tensor:
        """Mark exactly ``count`` units: the largest, after those that the pattern lets remain.

        What is beyond the ``kept`` largest of its group is pruned first, by score; so the pattern
        holds exactly as soon as ``count`` is no more than it lets remain. Ties go by position.

        Args:
            units: float [units] of one or of several matrices, one after the other.
            count: how many remain.

        Returns:
            bool [units].
        """
        allowed = self._largest_of_groups(units)
        room = units.numel() // self.group * self.kept
        if count <= room:
            return top_k_mask(units.masked_fill(~allowed, -torch.inf), count)
        return allowed | top_k_mask(units.masked_fill(allowed, -torch.inf), count - room)

    def _largest_of_groups(self, units: Tensor) -> Tensor:
        """Mark the ``kept`` largest units of each group: fewer than so many come before them."""
        places = units.reshape(-1, self.group).T.contiguous()
        # Counting who comes first takes less time than sorting groups as small as these.
        marks = [
            (places[:place] >= places[place]).sum(dim=0)
            + (places[place + 1 :] > places[place]).sum(dim=0)
            < self.kept
            for place in range(self.group)
        ]
        return torch.stack(marks, dim=1).reshape(-1)

    def weight_mask(self, units: Tensor, shape: torch.Size) -> Tensor:
        """The mask of a matrix's weights, out of the mask of its units.

        Args:
            units: bool [units].
            shape: ``(out_features, in_features)``.

        Returns:
            bool [out_features, in_features].
        """
        rows = units.reshape(shape[0] // self.block, shape[1])
        return rows.repeat_interleave(self.block, dim=0) if self.block > 1 else rows


PATTERNS: Mapping[Pattern, WeightPattern] = {
    "unstructured": WeightPattern(),
    "2:4": WeightPattern(kept=2, group=4),
    "4:8": WeightPattern(kept=4, group=8),
    "block-4x1": WeightPattern(block=4),
}


def check_shapes(matrices: list[PrunedMatrix], name: Pattern) -> None:
    """Check that the pattern divides every matrix.

    Raises:
        ModelError: it does not.
    """
    pattern = PATTERNS[name]
    for matrix in matrices:
        outputs, inputs = matrix.module.weight.shape
        for side, size, part in (
            ("inputs", inputs, pattern.group),
            ("outputs", outputs, pattern.block),
        ):
            if size % part:
                raise ModelError(
                    f"--pattern {name}: {matrix.name} has {size} {side}, which {part} does not "
                    "divide; use --pattern unstructured"
                )
