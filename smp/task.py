"""What a run learns from and is judged by: data, labels, metric."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.artifacts.run import AnswerLayout, TaskKind, TaskLayout
from pipeline.config import TrainConfig
from pipeline.config.train import SQUAD_TASKS
from pipeline.data import LabelledText, encode_labels, infer_labels, numeric_labels
from pipeline.entities import has_entities
from pipeline.environment import is_main_process
from pipeline.errors import DataError
from pipeline.questions import Questions
from pipeline.tagged_words import TaggedWords, encode_tags, infer_tags
from pipeline.task_files import TaskData, kind_of, read_task_file
from smp.answering import tokenise_questions
from smp.examples import Examples, tokenise
from smp.glue import GLUE, read_glue
from smp.squad import read_squad
from smp.tagging import tokenise_words

__all__ = [
    "Task",
    "longest_text",
    "read_task",
    "task_layout",
    "tokenise_data",
    "tokenise_task",
    "usual_length",
]


@dataclass(frozen=True)
class Task:
    """The data of a run and what is to be predicted.

    Attributes:
        train: training examples.
        validation: validation examples.
        kind: what the model predicts.
        labels: label names in the order of the logits, empty for regression and question answering.
        metric: the metric that the task is judged by.
        answers: for question answering, how answers are found.
        mismatched: MNLI's second validation examples, None for other tasks.
    """

    train: TaskData
    validation: TaskData
    kind: TaskKind
    labels: tuple[str, ...]
    metric: str
    answers: AnswerLayout | None = None
    mismatched: LabelledText | None = None


def read_task(config: TrainConfig) -> Task:
    """Read the files, or fetch the task from the hub, that the configuration names.

    Raises:
        DataError: see :func:`pipeline.task_files.read_task_file`, :mod:`smp.glue` and
            :mod:`smp.squad`; or the two files do not belong together.
    """
    metric = None
    mismatched = None
    labels: tuple[str, ...] = ()
    data: TaskData
    validation: TaskData
    if config.task in SQUAD_TASKS:
        data, validation = read_squad(config.task)
        kind: TaskKind = "question-answering"
    elif config.task is not None:
        row = GLUE[config.task]
        data, validation, *others = read_glue(config.task)
        mismatched = others[0] if others else None
        kind, metric, labels = row.kind, row.metric, row.labels
    else:
        assert config.train_file is not None
        assert config.validation_file is not None
        columns = {
            "text_column": config.text_column,
            "text_pair_column": config.text_pair_column,
            "label_column": config.label_column,
        }
        asked = config.task_type
        data = read_task_file(config.train_file, flag="--train-file", kind=asked, **columns)
        kind = kind_of(data) if asked == "auto" else asked
        validation = read_task_file(
            config.validation_file, flag="--validation-file", kind=kind, **columns
        )
    labels = labels or _labels(data, kind, flag="--train-file")
    if config.max_train_samples is not None:
        data = data.head(config.max_train_samples)
        _labels(data, kind, flag="--max-train-samples leaves of --train-file")
    if config.max_validation_samples is not None:
        validation = validation.head(config.max_validation_samples)
        if mismatched is not None:
            mismatched = mismatched.head(config.max_validation_samples)
    answers = None
    if isinstance(data, Questions):
        assert isinstance(validation, Questions)
        answers = _answers(config, data, validation)
    metric = metric or _usual_metric(kind, labels)
    return Task(data, validation, kind, labels, metric, answers, mismatched)


def _labels(data: TaskData, kind: TaskKind, *, flag: str) -> tuple[str, ...]:
    if isinstance(data, TaggedWords):
        return infer_tags(data, flag=flag)
    if isinstance(data, LabelledText) and kind == "classification":
        return infer_labels(data, flag=flag)
    return ()


def _usual_metric(kind: TaskKind, labels: tuple[str, ...]) -> str:
    if kind == "token-classification":
        return "entity_f1" if has_entities(labels) else "accuracy"
    usual: Mapping[TaskKind, str] = {
        "classification": "accuracy",
        "regression": "pearson",
        "question-answering": "squad_f1",
    }
    return usual[kind]


def _answers(config: TrainConfig, data: Questions, validation: Questions) -> AnswerLayout:
    if data.unanswerable == len(data):
        raise DataError(f"--train-file {data.source}: no question has an answer; give some that do")
    if validation.unanswerable and not data.unanswerable:
        raise DataError(
            f"--validation-file {validation.source}: {validation.unanswerable} of its questions "
            "have no answer, and none of the training data, so that the model cannot learn to "
            "say so; give such training questions too, or drop those"
        )
    return AnswerLayout(
        stride=config.stride,
        max_answer_length=config.max_answer_length,
        n_best=config.n_best,
        no_answer=data.unanswerable > 0,
    )


def longest_text(config: TrainConfig, kind: TaskKind) -> int:
    """Tokens after which a text is cut, whatever the model takes."""
    return config.max_length or usual_length(kind)


def usual_length(kind: TaskKind) -> int:
    """The same if nothing is said: the paper's lengths of texts, and of windows."""
    return 384 if kind == "question-answering" else 128


def tokenise_task(task: Task, tokenizer: object, max_length: int) -> tuple[Examples, Examples]:
    """Tokenise training and validation examples, and say on stderr how many were cut.

    Raises:
        DataError: a validation label that the training data never had, or no number; a question
            that leaves no room for its context.
    """
    examples = []
    for data, flag in ((task.train, "--train-file"), (task.validation, "--validation-file")):
        tokenised = tokenise_data(task, data, tokenizer, max_length, flag=flag)
        if tokenised.truncated and is_main_process():
            print(
                f"note: {tokenised.truncated} of {len(data)} texts in {data.source} are longer "
                f"than {max_length} tokens and were cut",
                file=sys.stderr,
            )
        examples.append(tokenised)
    return examples[0], examples[1]


def tokenise_data(
    task: Task, data: TaskData, tokenizer: object, max_length: int, *, flag: str
) -> Examples:
    """Tokenise examples of a task.

    Args:
        task: the task.
        data: some of its examples; windows of other ones than the training data can be scored.
        tokenizer: a transformers tokenizer.
        max_length: tokens after which a text is cut.
        flag: the flag that named the data, for messages.

    Raises:
        DataError: see :func:`tokenise_task`.
    """
    if isinstance(data, Questions):
        assert task.answers is not None
        stride, training = task.answers.stride, data is task.train
        return tokenise_questions(data, tokenizer, max_length, stride, flag=flag, training=training)
    if isinstance(data, TaggedWords):
        tags = encode_tags(data, task.labels, flag=flag)
        return tokenise_words(data, tags, tokenizer, max_length)
    targets: list[int] | list[float]
    if task.kind == "classification":
        targets = encode_labels(data, task.labels, flag=flag)
    else:
        targets = numeric_labels(data, flag=flag)
    return tokenise(data, targets, tokenizer, max_length)


def task_layout(task: Task, max_length: int, metrics: Mapping[str, float]) -> TaskLayout:
    """The task as the manifest records it.

    Args:
        task: the task.
        max_length: tokens after which a text is cut.
        metrics: what was measured on the validation data, for the threshold of no answer.
    """
    answers = task.answers
    if answers is not None and answers.no_answer:
        threshold = metrics["no_answer_threshold"]
        answers = replace(answers, no_answer_threshold=threshold)
    return TaskLayout(
        kind=task.kind,
        labels=task.labels,
        text_column=task.train.text_column,
        text_pair_column=task.train.text_pair_column,
        label_column=task.train.label_column,
        max_length=max_length,
        metric=task.metric,
        answers=answers,
    )
