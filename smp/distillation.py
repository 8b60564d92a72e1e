"""The loss of learning from a teacher beside the labels (SMP, section 3.3; Hinton et al., 2015)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.artifacts.run import TaskKind

__all__ = [
    "TEACHER_LOGITS",
    "Distillation",
    "TaughtExamples",
    "collate_taught",
    "distillation_loss",
]

TEACHER_LOGITS = "teacher_logits"
IGNORED_LABEL = -100


def distillation_loss(
    kind: TaskKind,
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    positions: Tensor | None = None,
) -> Tensor:
    """How far the student's answers are from the teacher's, a scalar.

    T^2 KL(teacher || student) of both softmaxes at temperature T, so that its gradient is as large
    as that of the cross-entropy whatever T (Hinton et al., *Distilling the Knowledge in a Neural
    Network*, 2015). It is the mean over the batch; over the labelled positions for token
    classification; over start and end, whose softmaxes run over the real positions, for question
    answering. Regression has no softmax: the mean squared difference of the two numbers.

    Args:
        kind: what is predicted.
        student: float [batch, outputs], or [batch, sequence, outputs] for the kinds that answer
            for every token.
        teacher: float, the shape of ``student``.
        temperature: T.
        positions: bool [batch, sequence], the positions that count, for those kinds.
    """
    if kind == "regression":
        return nn.functional.mse_loss(student, teacher)
    student, teacher = student / temperature, teacher / temperature
    if kind == "question-answering":
        assert positions is not None
        # From [batch, sequence, start and end] to a row for each start and each end.
        padding = ~positions.unsqueeze(-1)
        lowest = torch.finfo(student.dtype).min
        student = student.masked_fill(padding, lowest).transpose(1, 2).flatten(0, 1)
        teacher = teacher.masked_fill(padding, lowest).transpose(1, 2).flatten(0, 1)
    elif kind == "token-classification":
        assert positions is not None
        student, teacher = student[positions], teacher[positions]
        if not len(student):  # a batch without a labelled word: no term, and no division by zero
            return student.sum()
    divergence = nn.functional.kl_div(
        student.log_softmax(dim=-1),
        teacher.log_softmax(dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


@dataclass(frozen=True)
class Distillation:
    """What a training step needs of its teacher.

    Attributes:
        kind: what is predicted.
        temperature: both logits are divided by it.
        weight: the teacher's share of the loss, in [0, 1].
        teacher: gives logits, in the student's order, of the student's inputs; None where every
            example brings them along.
    """

    kind: TaskKind
    temperature: float
    weight: float
    teacher: Callable[..., Tensor] | None = None

    @torch.no_grad()
    def ask(self, inputs: dict[str, Tensor]) -> Tensor:
        """The teacher's logits of a batch, float32."""
        assert self.teacher is not None
        return self.teacher(**inputs).float()

    def mix(
        self, loss: Tensor, student: Tensor, teacher: Tensor, targets: Tensor, mask: Tensor
    ) -> Tensor:
        """(1 - weight) x the task's loss + weight x the teacher's.

        Args:
            loss: of the task, a scalar.
            student: its logits, see :func:`distillation_loss`.
            teacher: its logits.
            targets: the labels; int64 [batch, sequence], -100 for none, for token classification.
            mask: int64 [batch, sequence], 1 at real tokens.
        """
        labelled = self.kind == "token-classification"
        term = distillation_loss(
            self.kind,
            student,
            teacher,
            temperature=self.temperature,
            positions=targets.ne(IGNORED_LABEL) if labelled else mask.bool(),
        )
        return (1.0 - self.weight) * loss + self.weight * term


class TaughtExamples(torch.utils.data.Dataset[dict[str, Any]]):
    """Examples that bring the teacher's logits along.

    Args:
        examples: the examples.
        logits: the teacher's of each: float [outputs], or [tokens, outputs].
    """

    def __init__(self, examples: Any, logits: Sequence[Tensor]) -> None:
        self.examples = examples
        self.logits = logits

    @property
    def inputs(self) -> dict[str, list[list[int]]]:
        """The inputs of the examples."""
        inputs: dict[str, list[list[int]]] = self.examples.inputs
        return inputs

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.examples[index], TEACHER_LOGITS: self.logits[index]}


def collate_taught(
    examples: Sequence[dict[str, Any]], collate: Callable[..., dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Make a batch of taught examples, or of plain ones, which come to be evaluated.

    Args:
        examples: what :class:`TaughtExamples` gives.
        collate: makes a batch of what is left without the teacher's logits.

    Returns:
        the batch, with ``teacher_logits``, float [batch, outputs] or [batch, sequence, outputs],
        if the examples have them.
    """
    if TEACHER_LOGITS not in examples[0]:
        return collate(examples)
    logits = [example.pop(TEACHER_LOGITS) for example in examples]
    padded = nn.utils.rnn.pad_sequence(logits, batch_first=True)
    return {**collate(examples), TEACHER_LOGITS: padded}
