"""The benchmark: sizes, load time, memory, quality and latency of models, measured in one go."""

import datetime
import gc
import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline import __version__
from pipeline.artifacts.benchmark import (
    Benchmark,
    MeasuredCell,
    ModelResult,
    OperatorProfile,
    Predictions,
    Quality,
    Startup,
    Timing,
)
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.manifest import to_json
from pipeline.config import BenchConfig
from pipeline.data import LabelledText
from pipeline.energy import find_energy_meter
from pipeline.errors import ArtifactError, ConfigurationError
from pipeline.machine import describe_machine, usable_cores
from pipeline.status import status_line
from serve.child import made_up_inputs
from serve.labelled import Labelled, read_labelled
from serve.latency import measure_cell
from serve.operators import measure_operators
from serve.peers import LoadPytorch
from serve.quality import measure_quality
from serve.robustness import texts_compared
from serve.scenarios import plan_cells
from serve.slices import token_lengths
from serve.startup import measure_startups
from serve.subjects import Subject, open_subjects

__all__ = ["run_benchmark"]

_PACKAGES = ("smp-pipeline", "numpy", "tokenizers")
_REDRAW_SECONDS = 0.2

# Begins a bar, with its text and its number of steps; gives what advances it.
Stage = Callable[[str, int], Callable[..., None]]


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
    with status_line("loading the models"):
        subjects = open_subjects(config, threads=config.threads[0], load_pytorch=load_pytorch)
        labelled = read_labelled(config, [subject.session for subject in subjects])
        _check_lengths(config, subjects)
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    # No variable of this function may hold a subject: they are closed between thread counts.
    for found in [subject.versions for subject in subjects]:
        versions.update(found)
    with _progress() as progress:
        stage = _stages(progress)
        models = _measure_models(config, subjects, labelled, stage)
        cells = _measure_cells(
            config, subjects, None if labelled is None else labelled.texts, stage, load_pytorch
        )
    return Benchmark(
        smp_pipeline_version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine,
        versions=versions,
        task=None if labelled is None else labelled.task,
        data=None if labelled is None else labelled.describe(),
        settings=to_json(config),
        cells=tuple(measured for measured, _ in cells),
        models=tuple(
            replace(model, timings=tuple(timings[index] for _, timings in cells))
            for index, model in enumerate(models)
        ),
    )


def _measure_models(
    config: BenchConfig, subjects: Sequence[Subject], labelled: Labelled | None, stage: Stage
) -> list[ModelResult]:
    """All but the timings: size, load time, memory, quality and time by operator."""
    advance = stage("sizes", len(subjects))
    sizes = []
    for subject in subjects:
        sizes.append(subject.measure_size())
        advance()
    opened = [subject.session for subject in subjects if not subject.is_peer]
    # The peers come last, and have none.
    startups: list[Startup | None] = [None] * len(subjects)
    startups[: len(opened)] = measure_startups(
        opened,
        processes=config.startups,
        batch_size=config.batch_sizes[0],
        sequence_length=config.sequence_lengths[0],
        random=Random(config.seed),
        advance=stage("load time and memory", config.startups * len(opened)),
    )
    qualities: list[Quality | None] = [None] * len(subjects)
    if labelled is not None:
        lengths = token_lengths(subjects[0].session, labelled.texts)
        rows = len(labelled.texts)
        advance = stage("quality", (rows + 2 * texts_compared(rows)) * len(subjects))
        first: Predictions | None = None
        for index, subject in enumerate(subjects):
            quality = measure_quality(
                subject,
                labelled.examples,
                labelled.references,
                labelled.task,
                lengths=lengths,
                first=first,
                bootstrap_samples=config.bootstrap_samples,
                seed=config.seed,
                advance=advance,
            )
            first = first or quality.predictions
            qualities[index] = quality
    profiles = _profile(config, subjects, stage)
    return [
        ModelResult(
            name=subject.name,
            source=subject.source,
            engine=subject.engine,
            provider=subject.provider,
            export=subject.export,
            model_sha256=subject.model_sha256,
            tokenizer_sha256=sha256_file(subject.session.layout.tokenizer),
            size=sizes[index],
            startup=startups[index],
            quality=qualities[index],
            timings=(),
            profile=profiles[index],
        )
        for index, subject in enumerate(subjects)
    ]


def _profile(
    config: BenchConfig, subjects: Sequence[Subject], stage: Stage
) -> list[OperatorProfile | None]:
    """Kernels and time by operator in the grid's first cell, of the models that are to have it."""
    wanted = [
        not subject.is_peer and (config.profile or subject.session.layout.format == "engine")
        for subject in subjects
    ]
    profiles: list[OperatorProfile | None] = [None] * len(subjects)
    if not any(wanted):
        return profiles
    advance = stage("time by operator", sum(wanted))
    for index, subject in enumerate(subjects):
        if wanted[index]:
            profiles[index] = measure_operators(
                subject.session,
                batch_size=config.batch_sizes[0],
                sequence_length=config.sequence_lengths[0],
            )
            advance()
    return profiles


def _measure_cells(
    config: BenchConfig,
    subjects: list[Subject],
    texts: LabelledText | None,
    stage: Stage,
    load_pytorch: LoadPytorch | None,
) -> list[tuple[MeasuredCell, list[Timing]]]:
    """Time all models in all cells.

    Args:
        config: the configuration.
        subjects: opened for the first thread count; closed for the next ones.
        texts: of the data file, if there is one.
        stage: begins a bar.
        load_pytorch: how peers of PyTorch load their model.
    """
    rows = 0 if texts is None else len(texts)
    plan = {
        threads: plan_cells(config, threads=threads, rows=rows)
        for threads in (count or usable_cores() for count in config.threads)
    }
    advance = stage("latency", sum(map(len, plan.values())) * config.repetitions)
    only_first = replace(
        config,
        models=config.models[:1],
        providers=config.providers[:1],
        peers=(),
        pytorch_model=None,
    )
    random = Random(config.seed)
    meter = find_energy_meter()
    measured = []
    for index, (threads, cells) in enumerate(plan.items()):
        if index:
            subjects += open_subjects(config, threads=threads, load_pytorch=load_pytorch)
        control = open_subjects(only_first, threads=threads)
        for cell in cells:
            measured.append(
                measure_cell(
                    cell,
                    subjects,
                    control[0],
                    texts,
                    config,
                    meter=meter,
                    random=random,
                    advance=advance,
                )
            )
        subjects.clear()  # before those of the next count come
        control.clear()
        gc.collect()
    return measured


def _stages(progress: Progress) -> Stage:
    """Bars that are drawn between two steps only: a thread that draws would disturb the timing."""
    drawn_at = time.monotonic()

    def stage(description: str, total: int) -> Callable[..., None]:
        bar = progress.add_task(description, total=total)
        progress.refresh()

        def advance(count: int = 1) -> None:
            nonlocal drawn_at
            progress.advance(bar, count)
            if time.monotonic() - drawn_at >= _REDRAW_SECONDS or progress.finished:
                progress.refresh()
                drawn_at = time.monotonic()

        return advance

    return stage


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,
    )


def _check_output(output: Path) -> None:
    """Fail before the measuring, not after it, where the result cannot be written."""
    if output.is_dir():
        raise ConfigurationError(f"--output {output} is a directory; name a .json file in it")
    for beside in (output.with_suffix(".md"), output.with_suffix(".svg")):
        if beside.is_dir():
            raise ConfigurationError(f"--output {output}: {beside}, written too, is a directory")
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigurationError(f"--output {output}: {parent} is no directory that you may write")


def _check_lengths(config: BenchConfig, subjects: Sequence[Subject]) -> None:
    """Find out before the long part whether every model takes the longest sequence."""
    lengths = config.sequence_lengths
    longest = max(lengths) if "grid" in config.scenarios else lengths[0]
    for subject in subjects:
        try:
            subject.run(made_up_inputs(subject.session, 1, longest))
        except ArtifactError as error:
            raise ConfigurationError(
                f"--sequence-lengths {longest} is more than {subject.source} takes, or the "
                f"tokenizer is another model's ({error}); give shorter ones, or its --tokenizer"
            ) from error
