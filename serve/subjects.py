"""What a benchmark measures: each model on each engine, with the tokenizer that feeds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.benchmark import ExportFacts, SizeOnDisk
from pipeline.artifacts.exported import ExportManifest
from pipeline.artifacts.files import sha256_file
from pipeline.config import BenchConfig
from pipeline.errors import ConfigurationError
from serve.layout import ModelSource, read_layout
from serve.peers import LoadPytorch, check_peer, open_peer
from serve.providers import resolve_provider, short_name
from serve.session import Session, import_onnxruntime, open_session
from serve.size import measure_size

__all__ = ["Inputs", "Subject", "open_subjects"]

Inputs = Mapping[str, NDArray[np.int64]]

_ENGINE = "onnxruntime"


@dataclass(frozen=True)
class Subject:
    """A model on an engine, in memory.

    Attributes:
        name: unique within the benchmark.
        source: the path as it was given.
        engine: ``onnxruntime``, or the name of a peer.
        provider: ONNX Runtime's execution provider, or the peer's device.
        session: tokenises and collates; the first model's where the engine is a peer.
        run: as :meth:`serve.session.Session.run`.
        export: what our export said of the model; None for files of others.
        model_sha256: hash of the ONNX file; None where the engine reads none.
        measure_size: bytes on disk; None where the engine reads no ONNX file.
        versions: package -> version of what the engine needs.
    """

    name: str
    source: str
    engine: str
    provider: str
    session: Session
    run: Callable[[Inputs], NDArray[np.float32]]
    export: ExportFacts | None = None
    model_sha256: str | None = None
    measure_size: Callable[[], SizeOnDisk | None] = lambda: None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_peer(self) -> bool:
        """Whether the session is not what runs: start-up and operators are not measured then."""
        return self.engine != _ENGINE


def open_subjects(
    config: BenchConfig, *, threads: int, load_pytorch: LoadPytorch | None = None
) -> list[Subject]:
    """Open all that a configuration names: every model on every provider, then the peers.

    Args:
        config: the configuration.
        threads: of each; 0 takes all cores that the process may use.
        load_pytorch: how peers of PyTorch load their model.

    Raises:
        ArtifactError: a model directory or file is incomplete or corrupt, or cannot be measured.
        ConfigurationError: a provider or peer is not to be had for it.
        MachineError: a package is missing.
        VerificationError: a peer computes something else than the first model.
    """
    onnxruntime = import_onnxruntime()
    providers = [resolve_provider(onnxruntime, name) for name in config.providers]
    if len(set(providers)) != len(providers):
        raise ConfigurationError("--providers names one provider twice; give each once")
    subjects = []
    for name, path in zip(_unique_names(config.models), config.models, strict=True):
        layout = read_layout(ModelSource(path, config.tokenizer, config.max_length, config.labels))
        for provider in providers:
            session = open_session(layout, threads=threads, provider=provider)
            own_name = name if len(providers) == 1 else f"{name} ({short_name(provider)})"
            subjects.append(_subject(own_name, session))
    first = subjects[0].session
    if config.validation_file is not None:
        _need_logits(subjects)
    name = _unique_names(config.models)[0]
    for engine in config.peers:
        peer = open_peer(engine, first, config.pytorch_model, load_pytorch)
        check_peer(engine, peer, first)
        subjects.append(
            Subject(
                name=f"{name} ({engine})",
                source=peer.source,
                engine=engine,
                provider=peer.device,
                session=first,
                run=peer.run,
                export=None if peer.size is None else subjects[0].export,
                model_sha256=peer.model_sha256,
                measure_size=lambda size=peer.size: size,  # type: ignore[misc]
                versions=peer.versions,
            )
        )
    return subjects


def _subject(name: str, session: Session) -> Subject:
    layout = session.layout
    return Subject(
        name=name,
        source=str(layout.source.path),
        engine=_ENGINE,
        provider=session.provider,
        session=session,
        run=session.run,
        export=None if layout.manifest is None else _export_facts(layout.manifest),
        model_sha256=layout.sha256.get(layout.graph) or sha256_file(layout.graph),
        measure_size=lambda: measure_size(layout),
        versions={"onnxruntime": session.runtime_version},
    )


def _export_facts(manifest: ExportManifest) -> ExportFacts:
    return ExportFacts(
        format=manifest.format,
        method=manifest.method,
        density=manifest.density,
        base_model=manifest.base_model.id,
        densities=manifest.densities,
    )


def _need_logits(subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        if subject.session.task is None:
            raise ConfigurationError(
                f"--validation-file: {subject.source} gives no logits of one label or number a "
                f"text (its first output is {subject.session.output_names[0]}), so its quality "
                "cannot be measured; leave the file out to measure size and speed"
            )


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """The files' names; the whole path, then a number, where two are equal."""
    names = [path.resolve().name if path.is_dir() else path.name for path in paths]
    names = [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]
    return [
        name if name not in names[:index] else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]
