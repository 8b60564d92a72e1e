"""The labelled texts of a benchmark, and the task that all its models share."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.benchmark import BenchmarkData, BenchmarkTask
from pipeline.artifacts.files import sha256_file
from pipeline.config import BenchConfig
from pipeline.data import LabelledText, encode_labels, numeric_labels, read_labelled_text
from pipeline.errors import ArtifactError, DataError
from pipeline.metrics import METRICS
from serve.session import Session

__all__ = ["Labelled", "example_id", "read_labelled"]

_FLAG = "--validation-file"
_ID_DIGITS = 16


@dataclass(frozen=True)
class Labelled:
    """Texts with what the models should say of them.

    Attributes:
        task: what all models predict.
        texts: the examples.
        references: label index, or the number for regression, of each.
    """

    task: BenchmarkTask
    texts: LabelledText
    references: Sequence[int | float]

    def describe(self) -> BenchmarkData:
        """What the benchmark's file says of them; the texts are not in it."""
        texts = self.texts
        pairs: Sequence[str | None] = [None] * len(texts) if texts.pairs is None else texts.pairs
        return BenchmarkData(
            source=texts.source,
            sha256=sha256_file(Path(texts.source)),
            rows=len(texts),
            text_column=texts.text_column,
            text_pair_column=texts.text_pair_column,
            label_column=texts.label_column,
            example_ids=tuple(map(example_id, texts.texts, pairs)),
            references=tuple(self.references),
        )


def read_labelled(config: BenchConfig, sessions: Sequence[Session]) -> Labelled | None:
    """Read the data file of a configuration as the models need it; None where it names none.

    Raises:
        ArtifactError: the first model's metric is unknown.
        DataError: the file does not fit, or the models do not predict the same.
    """
    if config.validation_file is None:
        return None
    task = _common_task(sessions)
    texts = _read_texts(config, config.validation_file, sessions[0])
    if task.kind == "regression":
        return Labelled(task, texts, numeric_labels(texts, flag=_FLAG))
    return Labelled(task, texts, encode_labels(texts, task.labels, flag=_FLAG))


def _common_task(sessions: Sequence[Session]) -> BenchmarkTask:
    first = sessions[0]
    task = first.task
    assert task is not None  # open_subjects refuses others where there are labelled texts
    for session in sessions[1:]:
        other = session.task
        assert other is not None
        if (other.kind, other.labels) != (task.kind, task.labels):
            raise DataError(
                f"{first.directory} and {session.directory} do not predict the same: "
                f"{task.kind} of {', '.join(task.labels) or 'a number'} against "
                f"{other.kind} of {', '.join(other.labels) or 'a number'}; bench them apart"
            )
    if task.metric not in METRICS:
        raise ArtifactError(
            f"{first.directory}: unknown metric {task.metric!r} in the manifest; "
            f"known are {', '.join(METRICS)}; export the model again"
        )
    return BenchmarkTask(task.kind, task.labels, task.metric)


def _read_texts(config: BenchConfig, path: Path, first: Session) -> LabelledText:
    task = first.task
    assert task is not None
    pair_column = config.text_pair_column or task.text_pair_column
    data = read_labelled_text(
        path,
        flag=_FLAG,
        text_column=config.text_column or task.text_column,
        text_pair_column=pair_column,
        label_column=config.label_column or task.label_column,
    )
    if pair_column is None:  # the reader would take a usual partner; the model had none
        data = dataclasses.replace(data, pairs=None, text_pair_column=None)
    return data if config.max_samples is None else data.head(config.max_samples)


def example_id(text: str, pair: str | None) -> str:
    """The id by which predictions of two benchmarks are paired: 16 hexadecimal digits."""
    whole = text if pair is None else f"{text}\0{pair}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]
