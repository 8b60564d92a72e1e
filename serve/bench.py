"""The benchmark: sizes, load time, memory, predictions and latency of exported models."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline import __version__
from pipeline.artifacts.benchmark import (
    Benchmark,
    BenchmarkData,
    BenchmarkTask,
    ModelResult,
    OperatorProfile,
    Quality,
    Robustness,
)
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.manifest import to_json
from pipeline.config import BenchConfig
from pipeline.data import LabelledText, encode_labels, numeric_labels, read_labelled_text
from pipeline.errors import ArtifactError, ConfigurationError, DataError
from pipeline.machine import describe_machine
from pipeline.metrics import METRICS
from serve.latency import fixed_length_inputs, time_grid
from serve.operators import measure_operators
from serve.peers import LoadPytorch
from serve.predict import predict, score
from serve.session import Session
from serve.startup import PROCESSES, measure_startups
from serve.subjects import open_subjects

__all__ = ["example_id", "run_benchmark"]

_FLAG = "--validation-file"
_ID_DIGITS = 16
_PACKAGES = ("smp-pipeline", "numpy", "tokenizers")


def run_benchmark(config: BenchConfig, *, load_pytorch: LoadPytorch | None = None) -> Benchmark:
    """Measure all models of a configuration; writes nothing.

    Progress goes to stderr if that is a terminal.

    Args:
        config: the configuration.
        load_pytorch: how peers of PyTorch load their model; needed where there are any.

    Raises:
        ArtifactError: a model directory is incomplete or corrupt.
        ConfigurationError: a sequence length is longer than a model takes.
        DataError: the validation file does not fit, or the models do not predict the same.
        MachineError: ONNX Runtime is missing, or a measuring process died.
    """
    machine = describe_machine()
    _check_output(config.output)
    subjects = open_subjects(config, threads=config.threads[0], load_pytorch=load_pytorch)
    sessions = [subject.session for subject in subjects]
    task = _common_task(sessions)
    data = _read_data(config, sessions[0])
    references = _references(data, task)
    _check_lengths(sessions, data, max(config.sequence_lengths))
    with _progress() as progress:

        def stage(description: str, total: int) -> Callable[..., None]:
            bar = progress.add_task(description, total=total)
            return lambda count=1: progress.advance(bar, count)

        advance = stage("sizes", len(sessions))
        sizes = []
        for subject in subjects:
            sizes.append(subject.measure_size())
            advance()
        startups = measure_startups(
            [subject.session for subject in subjects],
            batch_size=config.batch_sizes[0],
            sequence_length=config.sequence_lengths[0],
            random=Random(config.seed),
            advance=stage("load time and memory", PROCESSES * len(sessions)),
        )
        advance = stage("predictions", len(data) * len(sessions))
        predicted = [
            predict(
                session,
                data.texts,
                data.pairs,
                classification=task.kind == "classification",
                advance=advance,
            )
            for session in sessions
        ]
        cells = len(config.batch_sizes) * len(config.sequence_lengths)
        timings, cells_measured = time_grid(
            sessions,
            data.texts,
            batch_sizes=config.batch_sizes,
            sequence_lengths=config.sequence_lengths,
            warmup=config.warmup,
            repetitions=config.repetitions,
            bootstrap_samples=config.bootstrap_samples,
            seed=config.seed,
            advance=stage("latency", cells * config.repetitions),
        )
        profiles = _profile(config, sessions, stage)
        advance = stage("intervals", len(sessions))
        metrics = []
        for predictions, _ in predicted:
            metrics.append(
                score(
                    predictions,
                    references,
                    task,
                    bootstrap_samples=config.bootstrap_samples,
                    seed=config.seed,
                )
            )
            advance()
    return Benchmark(
        smp_pipeline_version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"onnxruntime": sessions[0].runtime_version},
        task=task,
        data=_describe_data(data, references),
        settings=to_json(config),
        cells=cells_measured,
        models=tuple(
            ModelResult(
                name=subjects[index].name,
                source=subjects[index].source,
                engine=subjects[index].engine,
                provider=subjects[index].provider,
                export=subjects[index].export,
                model_sha256=subjects[index].model_sha256,
                tokenizer_sha256=sha256_file(session.layout.tokenizer),
                size=sizes[index],
                startup=startups[index],
                quality=Quality(
                    truncated=predicted[index][1],
                    metrics=metrics[index],
                    predictions=predicted[index][0],
                    slices=(),
                    robustness=Robustness(0, 0, 0.0),
                    agreement=None,
                ),
                timings=timings[index],
                profile=profiles[index],
            )
            for index, session in enumerate(sessions)
        ),
    )


def _profile(
    config: BenchConfig,
    sessions: Sequence[Session],
    stage: Callable[[str, int], Callable[..., None]],
) -> list[OperatorProfile | None]:
    """Kernels and time by operator in the grid's first cell, of the models that are to have it."""
    wanted = [config.profile or session.layout.format == "engine" for session in sessions]
    if not any(wanted):
        return [None] * len(sessions)
    advance = stage("time by operator", sum(wanted))
    profiles: list[OperatorProfile | None] = []
    for session, is_wanted in zip(sessions, wanted, strict=True):
        profiles.append(
            measure_operators(
                session,
                batch_size=config.batch_sizes[0],
                sequence_length=config.sequence_lengths[0],
            )
            if is_wanted
            else None
        )
        advance(int(is_wanted))
    return profiles


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _check_output(output: Path) -> None:
    """Fail before the measuring, not after it, where the result cannot be written."""
    if output.is_dir():
        raise ConfigurationError(f"--output {output} is a directory; name a .json file in it")
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigurationError(f"--output {output}: {parent} is no directory that you may write")


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


def _read_data(config: BenchConfig, first: Session) -> LabelledText:
    task = first.task
    assert task is not None
    pair_column = config.text_pair_column or task.text_pair_column
    assert config.validation_file is not None
    data = read_labelled_text(
        config.validation_file,
        flag=_FLAG,
        text_column=config.text_column or task.text_column,
        text_pair_column=pair_column,
        label_column=config.label_column or task.label_column,
    )
    if pair_column is None:  # the reader would take a usual partner; the model had none
        data = dataclasses.replace(data, pairs=None, text_pair_column=None)
    return data if config.max_samples is None else data.head(config.max_samples)


def _references(data: LabelledText, task: BenchmarkTask) -> Sequence[int | float]:
    if task.kind == "regression":
        return numeric_labels(data, flag=_FLAG)
    return encode_labels(data, task.labels, flag=_FLAG)


def _check_lengths(sessions: Sequence[Session], data: LabelledText, longest: int) -> None:
    """Find out before the long part whether every model takes the longest sequence."""
    for session in sessions:
        try:
            session.run(fixed_length_inputs(session, data.texts, 1, longest))
        except ArtifactError as error:
            raise ConfigurationError(
                f"--sequence-lengths {longest} is more than {session.directory} takes; "
                "give shorter ones"
            ) from error


def _describe_data(data: LabelledText, references: Sequence[int | float]) -> BenchmarkData:
    pairs: Sequence[str | None] = [None] * len(data) if data.pairs is None else data.pairs
    return BenchmarkData(
        source=data.source,
        sha256=sha256_file(Path(data.source)),
        rows=len(data),
        text_column=data.text_column,
        text_pair_column=data.text_pair_column,
        label_column=data.label_column,
        example_ids=tuple(map(example_id, data.texts, pairs)),
        references=tuple(references),
    )


def example_id(text: str, pair: str | None) -> str:
    """The id by which predictions of two benchmarks are paired: 16 hexadecimal digits."""
    whole = text if pair is None else f"{text}\0{pair}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]
