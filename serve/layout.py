"""Where the files of a model lie, and what they say of it: of our directories and of others'."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.artifacts.exported import (
    DATA_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportManifest,
    read_exported,
)
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.run import AnswerLayout, TaskKind
from pipeline.errors import ArtifactError, ConfigurationError
from serve.foreign_files import find_graph, foreign_facts, is_ours

__all__ = ["ModelLayout", "ModelSource", "ModelTask", "exported_layout", "read_layout"]


@dataclass(frozen=True)
class ModelSource:
    """A model as a user names it.

    Attributes:
        path: a model directory, an ONNX file, or a directory with one.
        tokenizer: the directory of tokenizer.json, if that is not the ONNX file's own.
        max_length: longest text in tokens, if the files do not say it.
        labels: label names in the order of the logits, in place of the model's own.
    """

    path: Path
    tokenizer: Path | None = None
    max_length: int | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelTask:
    """What a model predicts, and the columns that it was trained from.

    Attributes:
        kind: one label out of several, one number, a span of the second text, or a label a word.
        labels: label names in the order of the logits; empty for regression and for question
            answering.
        metric: the metric that the task is judged by, a name in :mod:`pipeline.metrics`.
        text_column, text_pair_column, label_column: None where nobody knows.
        answers: for question answering, how answers are found.
    """

    kind: TaskKind
    labels: tuple[str, ...]
    metric: str
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    answers: AnswerLayout | None = None

    @property
    def outputs(self) -> int:
        """Logits of a text, or of each token."""
        return 2 if self.kind == "question-answering" else max(1, len(self.labels))


@dataclass(frozen=True)
class ModelLayout:
    """The files of a model, and what is known of it before the graph is opened.

    Attributes:
        source: as the user named it.
        graph: the ONNX file.
        data: files with weights of the graph.
        tokenizer: tokenizer.json.
        others: the other files that belong to the model.
        sha256: file -> the hash that it must have; empty where nobody recorded one.
        max_length: tokens after which a text is cut, special tokens included.
        pad_token: the token that fills texts up, its name or id; None if the files don't say.
        labels: label names that the user or the files give; None where neither does.
        labelled: the files say that the logits are of one label out of several, or of a number.
        manifest: what our export said; None for files of others.
    """

    source: ModelSource
    graph: Path
    data: tuple[Path, ...]
    tokenizer: Path
    others: tuple[Path, ...]
    max_length: int
    sha256: Mapping[Path, str] = field(default_factory=dict)
    pad_token: str | int | None = None
    labels: tuple[str, ...] | None = None
    labelled: bool = True
    manifest: ExportManifest | None = None

    @property
    def format(self) -> str | None:
        """How our export stored the weights; None for files of others."""
        return None if self.manifest is None else self.manifest.format

    @property
    def graph_files(self) -> tuple[Path, ...]:
        """The ONNX file and its weights."""
        return (self.graph, *self.data)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the model, each once."""
        return tuple(dict.fromkeys((*self.graph_files, self.tokenizer, *self.others)))

    def check_hashes(self) -> None:
        """Compare the files with what was recorded of them.

        Raises:
            ArtifactError: one is another.
        """
        for path, expected in self.sha256.items():
            if sha256_file(path) != expected:
                raise ArtifactError(
                    f"{path} is truncated or was changed: its hash is not the manifest's; "
                    "copy the directory again or export again"
                )

    def pad_token_id(self, tokenizer: Tokenizer) -> int:
        """The id that pads ``input_ids``.

        Args:
            tokenizer: as tokenizer.json has it.
        """
        if self.manifest is None and tokenizer.padding is not None:
            return int(tokenizer.padding["pad_id"])
        if isinstance(self.pad_token, int):
            return self.pad_token
        found = None if self.pad_token is None else tokenizer.token_to_id(self.pad_token)
        return 0 if found is None else int(found)  # the attention mask hides it

    def task(self, shape: tuple[int, ...], *, only_output: bool) -> ModelTask | None:
        """What the model predicts; None where it is not ours and gives no vector of logits a text.

        Args:
            shape: of the output for one text; () where it depends on the text's length.
            only_output: the graph has no other output, or calls this one logits.

        Raises:
            ConfigurationError: --labels has another number than there are logits.
        """
        labels = self.source.labels
        if self.manifest is not None:
            task = self.manifest.task
            if labels and len(labels) != len(task.labels):
                raise self._other_number(len(task.labels))
            return ModelTask(
                task.kind,
                labels or task.labels,
                task.metric,
                task.text_column,
                task.text_pair_column,
                task.label_column,
                task.answers,
            )
        named = labels or self.labels or ()
        if len(shape) != 2 or not self.labelled or (not only_output and len(named) != shape[1]):
            return None
        count = shape[1] if shape[1] > 1 else 0  # one logit is a number
        if labels and len(labels) != count:
            raise self._other_number(count)
        if shape[1] == 1:
            return ModelTask("regression", (), "spearman")
        if len(named) != shape[1]:
            named = tuple(f"LABEL_{index}" for index in range(shape[1]))
        return ModelTask("classification", named, "accuracy")

    def _other_number(self, count: int) -> ConfigurationError:
        has, fix = f"has {count} labels", "give it once a label, in the order of the logits"
        if not count:
            has, fix = "has no labels", "leave it out"
        return ConfigurationError(
            f"--labels is given {len(self.source.labels)} times, {self.source.path} {has}; {fix}"
        )


def read_layout(source: ModelSource) -> ModelLayout:
    """The layout of a model directory of ours, or of an ONNX file of others.

    An ONNX file that lies in a model directory of ours is that directory.

    Raises:
        ArtifactError: a file is missing or malformed, or there is no ONNX file.
        ConfigurationError: --max-length is needed.
    """
    path = source.path
    directory = path.parent if path.is_file() and path.name == MODEL_FILE else path
    if is_ours(directory):
        return exported_layout(directory, source)
    graph = find_graph(path)
    facts = foreign_facts(graph, source.tokenizer, source.max_length, source.labels)
    return ModelLayout(
        source=source,
        graph=graph,
        data=facts.data,
        tokenizer=facts.tokenizer,
        others=facts.others,
        max_length=facts.max_length,
        pad_token=facts.pad_token,
        labels=facts.labels,
        labelled=facts.labelled,
    )


def exported_layout(directory: Path, source: ModelSource | None = None) -> ModelLayout:
    """The layout of a directory that `smp-pipeline export` wrote.

    Args:
        directory: the directory.
        source: how it was named, if it was not just by its path.

    Raises:
        ArtifactError: it is incomplete or corrupt.
    """
    manifest = read_exported(directory)
    graph, tokenizer = directory / MODEL_FILE, directory / TOKENIZER_FILE
    sha256 = {graph: manifest.model_sha256}
    data = directory / DATA_FILE
    if manifest.data_sha256 is not None:
        sha256[data] = manifest.data_sha256
    return ModelLayout(
        source=source or ModelSource(directory),
        graph=graph,
        data=(data,) if data.is_file() else (),
        tokenizer=tokenizer,
        others=tuple(sorted(path for path in directory.rglob("*") if path.is_file())),
        max_length=manifest.task.max_length,
        sha256=sha256,
        pad_token=manifest.pad_token_id,
        manifest=manifest,
    )
