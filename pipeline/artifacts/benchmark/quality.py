"""What the models said of labelled texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pipeline.artifacts.benchmark.timing import Estimate
from pipeline.artifacts.run import TaskKind

__all__ = [
    "Agreement",
    "BenchmarkData",
    "BenchmarkTask",
    "Predictions",
    "Quality",
    "Reference",
    "Robustness",
    "Slice",
]


# What should be said of an example: a label's index, a number, the texts of the right answers (none
# where the question has no answer), or the index of each word's label.
Reference: TypeAlias = int | float | tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class BenchmarkTask:
    """What all models of the benchmark predict.

    Attributes:
        kind: one label out of several, one number, a span of the second text, or a label a word.
        labels: label names in the order of the logits; empty for regression and for question
            answering.
        metric: the metric that the task is judged by.
    """

    kind: TaskKind
    labels: tuple[str, ...]
    metric: str


@dataclass(frozen=True)
class BenchmarkData:
    """The labelled texts.

    Attributes:
        source: the path, as it was given.
        sha256: hash of the file.
        rows: examples used, from the start of the file.
        text_column, text_pair_column, label_column: where they stood.
        example_ids: first 16 hexadecimal digits of the SHA-256 of each text (of text, NUL, second
            text for pairs); equal texts have equal ids.
        references: what should be said of each example.
    """

    source: str
    sha256: str
    rows: int
    text_column: str
    text_pair_column: str | None
    label_column: str
    example_ids: tuple[str, ...]
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Predictions:
    """What one model says of each example, in the order of the data.

    Attributes:
        labels: index of the largest logit, for classification; otherwise empty.
        logits: float32 values, one tuple an example; empty where they are of tokens.
        answers: for question answering, the text of each answer, empty for no answer.
        tags: for token classification, the index of each word's label; -1 for a word that was cut
            off and has none.
    """

    labels: tuple[int, ...]
    logits: tuple[tuple[float, ...], ...]
    answers: tuple[str, ...] = ()
    tags: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Slice:
    """The quality on a part of the data.

    Attributes:
        by: what the part is chosen by.
        name: the label, or the range of lengths in tokens; for question answering whether there is
            an answer, for token classification the type of entities, of which alone the metric is.
        examples: how many there are.
        metric: ``accuracy`` for classification, ``entity_f1`` for a type of entities, else the
            task's metric.
        estimate: the metric on them.
    """

    by: Literal["class", "length"]
    name: str
    examples: int
    metric: str
    estimate: Estimate


@dataclass(frozen=True)
class Agreement:
    """How far a model says what the first one says, example by example.

    Attributes:
        same_label: share of examples with the same predicted label, answer or labels of all words;
            None for regression.
        largest_logit_difference: over all examples and logits; None where they are of tokens,
            which need not be the same for both.
        examples: positions in the data of those with another.
    """

    same_label: Estimate | None
    largest_logit_difference: float | None
    examples: tuple[int, ...]


@dataclass(frozen=True)
class Robustness:
    """Whether a text gets the same answer alone and padded in a batch.

    Attributes:
        texts: how many were run both ways.
        changed_labels: how many got another label (of any token, for token classification; another
            likeliest start or end, for question answering); 0 for regression.
        largest_logit_difference: over all of them, of padding none.
    """

    texts: int
    changed_labels: int
    largest_logit_difference: float


@dataclass(frozen=True)
class Quality:
    """What a model says of labelled texts, from the exported graph.

    Attributes:
        truncated: texts that were longer than the model's ``max_length`` and were cut; 0 for
            question answering, which reads a long context window by window.
        metrics: metric name -> value; the task's own metric is the first.
        predictions: per example.
        slices: the metric on parts of the data.
        robustness: same answer alone and in a batch.
        agreement: with the first model; None for the first itself.
    """

    truncated: int
    metrics: Mapping[str, Estimate]
    predictions: Predictions
    slices: tuple[Slice, ...]
    robustness: Robustness
    agreement: Agreement | None
