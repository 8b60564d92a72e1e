"""The labelled texts of a benchmark, and the task that all its models share."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.benchmark import BenchmarkData, BenchmarkTask, Reference
from pipeline.artifacts.files import sha256_file
from pipeline.config import BenchConfig
from pipeline.data import LabelledText, encode_labels, numeric_labels
from pipeline.errors import ArtifactError, DataError
from pipeline.metrics import TASK_METRICS
from pipeline.questions import Questions
from pipeline.tagged_words import TaggedWords, encode_tags
from pipeline.task_files import TaskData, read_task_file
from pipeline.word_tokens import join_words
from serve.layout import ModelTask
from serve.session import Session

__all__ = ["FLAG", "Labelled", "example_id", "plain_texts", "read_labelled"]

FLAG = "--validation-file"
_ID_DIGITS = 16


@dataclass(frozen=True)
class Labelled:
    """Texts with what the models should say of them.

    Attributes:
        task: what all models predict.
        examples: as the file has them.
        references: what should be said of each.
        texts: the examples as texts and second texts, for timing.
    """

    task: BenchmarkTask
    examples: TaskData
    references: Sequence[Reference]
    texts: LabelledText

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
    examples = _read_examples(config, config.validation_file, sessions[0])
    return Labelled(task, examples, _references(examples, task), plain_texts(examples))


def _references(examples: TaskData, task: BenchmarkTask) -> Sequence[Reference]:
    if isinstance(examples, Questions):
        return examples.references
    if isinstance(examples, TaggedWords):
        return [tuple(tags) for tags in encode_tags(examples, task.labels, flag=FLAG)]
    if task.kind == "regression":
        return numeric_labels(examples, flag=FLAG)
    return encode_labels(examples, task.labels, flag=FLAG)


def plain_texts(examples: TaskData) -> LabelledText:
    """Examples as texts and second texts, whatever their labels are."""
    if isinstance(examples, LabelledText):
        return examples
    if isinstance(examples, Questions):
        texts, pairs = examples.texts, examples.pairs
    else:
        texts, pairs = [join_words(words)[0] for words in examples.words], None
    return LabelledText(
        examples.source,
        texts,
        pairs,
        (),
        examples.text_column,
        examples.text_pair_column,
        examples.label_column,
    )


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
                f"{_predicts(task)} against {_predicts(other)}; bench them apart"
            )
    known = TASK_METRICS[task.kind]
    if task.metric not in known:
        raise ArtifactError(
            f"{first.directory}: unknown metric {task.metric!r} in the manifest; "
            f"known are {', '.join(known)}; export the model again"
        )
    return BenchmarkTask(task.kind, task.labels, task.metric)


def _predicts(task: ModelTask) -> str:
    if task.kind == "question-answering":
        return task.kind
    return f"{task.kind} of {', '.join(task.labels) or 'a number'}"


def _read_examples(config: BenchConfig, path: Path, first: Session) -> TaskData:
    task = first.task
    assert task is not None
    pair_column = config.text_pair_column or task.text_pair_column
    data = read_task_file(
        path,
        flag=FLAG,
        kind=task.kind,
        text_column=config.text_column or task.text_column,
        text_pair_column=pair_column,
        label_column=config.label_column or task.label_column,
    )
    if pair_column is None and isinstance(
        data, LabelledText
    ):  # the reader would take a usual partner; the model had none
        data = dataclasses.replace(data, pairs=None, text_pair_column=None)
    return data if config.max_samples is None else data.head(config.max_samples)


def example_id(text: str, pair: str | None) -> str:
    """The id by which predictions of two benchmarks are paired: 16 hexadecimal digits."""
    whole = text if pair is None else f"{text}\0{pair}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]
