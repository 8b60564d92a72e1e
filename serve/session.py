"""A model, opened in ONNX Runtime: texts in, logits out. Needs no torch."""

import importlib.metadata
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline import native
from pipeline.artifacts.exported import ExportManifest
from pipeline.artifacts.run import is_by_token
from pipeline.errors import ArtifactError, ConfigurationError, MachineError, first_line
from pipeline.machine import usable_cores
from pipeline.windows import Window, encode_windows
from serve.graph_ports import ENCODING_FIELDS, GraphPorts, read_ports
from serve.held_tokenizer import HeldTokenizer, hold_tokenizer, uncut, usable
from serve.layout import ModelLayout, ModelTask, exported_layout
from serve.providers import CPU, check_used, resolve_provider, select_provider
from serve.shared_runtime import SharedRuntime
from serve.shared_weights import SharedWeights
from serve.weak_cache import Held

__all__ = ["Row", "Session", "TokenRow", "import_onnxruntime", "open_session"]

# Of two lengths, to see what comes out.
_PROBE_TEXTS = ("A text.", "A longer text, of some more words.")


class TokenRow(NamedTuple):
    """One text in tokens, without padding, named as the tokenizers library names them."""

    ids: list[int]
    attention_mask: list[int]
    type_ids: list[int]


# What can be run beside others: it has ids, attention_mask and type_ids.
Row: TypeAlias = Encoding | TokenRow | Window


class Session:
    """One model in memory; made by :func:`open_session`.

    Attributes:
        layout: its files.
        task: what it predicts; None for files of others whose output is no vector of logits a
            text.
        provider: ONNX Runtime's execution provider.
        threads: intra-op threads.
        load_ms: time that ONNX Runtime took to create its session.
        runtime_version: ONNX Runtime's version.
    """

    def __init__(
        self,
        layout: ModelLayout,
        ports: GraphPorts,
        tokenizer: Held[HeldTokenizer],
        runtime_session: Any,
        weights: SharedWeights | None,
        provider: str,
        threads: int,
        load_ms: float,
        runtime_version: str,
    ) -> None:
        self.layout = layout
        self.provider = provider
        self.threads = threads
        self.load_ms = load_ms
        self.runtime_version = runtime_version
        self._ports = ports
        self._held_tokenizer = tokenizer
        self._tokenizer, self._pad_token_id = tokenizer.value
        self._runtime_session = runtime_session
        self._weights = weights  # after the session that reads them, so that they go after it
        self.task: ModelTask | None = None
        shape = (1, max(1, len(layout.manifest.task.labels))) if layout.manifest else self._shape()
        self.task = layout.task(shape, only_output=ports.only_output)

    @property
    def directory(self) -> Path:
        """The directory of the ONNX file."""
        return self.layout.graph.parent

    @property
    def manifest(self) -> ExportManifest | None:
        """What our export said of it; None for files of others."""
        return self.layout.manifest

    @property
    def inputs(self) -> tuple[str, ...]:
        """The graph's input names, all of them among those that a tokenizer gives."""
        return tuple(self._ports.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph's outputs that are fetched; :meth:`run` gives the first, or all in one."""
        return self._ports.outputs

    @property
    def max_length(self) -> int:
        """Tokens after which a text is cut, special tokens included."""
        return self.layout.max_length

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def outputs(self) -> int:
        """Logits a text, or a token; 0 where the output is something else."""
        return 0 if self.task is None else self.task.outputs

    @property
    def by_token(self) -> bool:
        """Whether the logits are of each token, not of the text."""
        return self.task is not None and is_by_token(self.task.kind)

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        offsets: bool = False,
    ) -> list[Encoding]:
        """Tokenise texts (or pairs), cut at the model's ``max_length``, not padded.

        Args:
            texts: the texts.
            pairs: the second texts, if there are any.
            offsets: say of each token where it stands, which takes longer.

        Raises:
            ArtifactError: tokenizer.json is damaged so that it fails on these texts.
        """
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        with usable(self.layout.tokenizer):
            # "fast" leaves out offsets.
            if offsets:
                return list(self._tokenizer.encode_batch(inputs))
            return list(self._tokenizer.encode_batch_fast(inputs))

    def windows(
        self, questions: Sequence[str], contexts: Sequence[str], *, where: str = ""
    ) -> Iterator[Window]:
        """The windows of questions on contexts, one by one, for a model that answers such.

        Args:
            questions: the questions.
            contexts: the context of each.
            where: the flag and the file, for messages.

        Raises:
            ArtifactError: tokenizer.json is damaged so that it fails on these texts.
            DataError: a question leaves no room for its context, or that has no tokens.
        """
        assert self.task is not None and self.task.answers is not None
        with usable(self.layout.tokenizer):
            yield from encode_windows(
                self._uncut_tokenizer,
                questions,
                contexts,
                max_length=self.max_length,
                stride=self.task.answers.stride,
                where=where,
            )

    @cached_property
    def _uncut_tokenizer(self) -> Tokenizer:
        return uncut(self._tokenizer)

    def collate(self, rows: Sequence[Row]) -> dict[str, NDArray[np.int64]]:
        """Pad rows to the longest of them: input name -> int64 [batch, sequence]."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        inputs = {}
        for name in self._ports.inputs:
            filler = self._pad_token_id if name == "input_ids" else 0
            inputs[name] = np.full(shape, filler, dtype=np.int64)
            for index, row in enumerate(rows):
                values = getattr(row, ENCODING_FIELDS[name])
                inputs[name][index, : len(values)] = values
        return inputs

    def feeds(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Inputs, int64 [batch, sequence], in the integer types that the graph takes."""
        return self._ports.feeds(inputs)

    def result(self, found: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """What :meth:`run` gives, of the graph's outputs in the order of ``output_names``."""
        return self._ports.result(found)

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Run the graph once.

        Args:
            inputs: input name -> int64 [batch, sequence].

        Returns:
            float32 [batch, outputs], [batch, sequence, outputs] for logits of tokens; where there
            is no task, the first output as it comes.

        Raises:
            ArtifactError: ONNX Runtime cannot run the graph on them.
        """
        try:
            found = self.result(self._runtime_session.run(self._ports.outputs, self.feeds(inputs)))
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            batch, length = inputs["input_ids"].shape
            raise ArtifactError(
                f"{self.layout.graph}: onnxruntime cannot run {batch} texts of {length} "
                f"tokens ({first_line(error)})"
            ) from error
        if self.task is None:
            return found
        result: NDArray[np.float32] = np.asarray(found, dtype=np.float32)
        extents = inputs["input_ids"].shape[: 2 if self.by_token else 1]
        if result.shape != (*extents, self.outputs):
            what = "token" if self.by_token else "text"
            raise ArtifactError(
                f"{self.layout.graph}: expected {self.outputs} logits a {what}, got shape "
                f"{list(result.shape)}; export the model again"
            )
        return result

    def logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Logits of one batch of texts or text pairs, as :meth:`run` gives them."""
        if not texts:
            return np.empty((0, self.outputs), dtype=np.float32)
        return self.run(self.collate(self.encode(texts, pairs)))

    def end_profiling(self) -> Path:
        """Stop ONNX Runtime's profiler and write its events; returns the JSON file."""
        return Path(self._runtime_session.end_profiling())

    def _shape(self) -> tuple[int, ...]:
        """The output's shape for one text; () where it depends on the text, or is of integers."""
        found = [self.run(self.collate(self.encode([text]))) for text in _PROBE_TEXTS]
        shapes = {array.shape for array in found}
        return shapes.pop() if len(shapes) == 1 and found[0].dtype.kind == "f" else ()


def open_session(
    model: Path | ModelLayout,
    *,
    threads: int = 0,
    provider: str = CPU,
    profile_prefix: str | None = None,
    shared: SharedRuntime | None = None,
) -> Session:
    """Open a model and check that it is whole.

    Args:
        model: a directory that `smp-pipeline export` wrote, or the layout of any model.
        threads: intra-op threads; 0 takes all cores that the process may use.
        provider: ONNX Runtime's execution provider, by its full or short name.
        profile_prefix: have ONNX Runtime profile all runs into a file whose path starts so; see
            :meth:`Session.end_profiling`.
        shared: share with all sessions of the process that are opened so what is equal (tokenizer,
            embeddings, the engine's weights) and what only one needs at a time (working memory,
            threads; ``threads`` is ignored). The logits are the same. On the CPU only.

    Raises:
        ArtifactError: a file is missing, corrupt, does not fit the manifest, or was replaced while
            it was read; or no tokenizer gives what the graph takes.
        ConfigurationError: SMP_ENGINE_ISA asks for an instruction set that cannot be had, the
            provider is not there, or the model is of the format ``engine`` and it is not the CPU.
        MachineError: ONNX Runtime is not installed, or twice; the provider does not run the model;
            or the model is of the format ``engine`` and the native library is missing.
    """
    onnxruntime = import_onnxruntime()
    layout = exported_layout(model) if isinstance(model, Path) else model
    provider = resolve_provider(onnxruntime, provider)
    is_engine = layout.format == "engine"
    if is_engine and provider != CPU:
        raise ConfigurationError(
            f"--providers {provider}: {layout.source.path} is of the format engine, whose "
            "operators run on the CPU; leave one of the two out, or export it with --format packed"
        )
    files = [*layout.graph_files, layout.tokenizer]
    before = [_identity(file) for file in files]
    layout.check_hashes()
    tokenizer = hold_tokenizer(layout, shared=shared is not None)
    threads = (threads or usable_cores()) if shared is None else shared.threads
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; no lines of its own beside ours
    # Without it, idle worker threads spin on after a run and slow down whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    if is_engine:
        native.register(options)
    weights = None
    start = time.perf_counter()
    if shared is not None:
        shared.configure(onnxruntime, options, engine=is_engine)
        weights = SharedWeights(onnxruntime, layout.graph, options)
    providers = select_provider(onnxruntime, options, provider)
    try:
        runtime_session = onnxruntime.InferenceSession(
            str(layout.graph), options, providers=providers
        )
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise _cannot_load(layout, provider, onnxruntime.__version__, error) from error
    load_ms = (time.perf_counter() - start) * 1000.0
    if [_identity(file) for file in files] != before:
        raise ArtifactError(f"{layout.graph.parent} was replaced while it was read; open it again")
    if weights is not None:
        weights.drop_encoded()
    check_used(runtime_session, provider, str(layout.graph))
    return Session(
        layout,
        read_ports(layout, runtime_session),
        tokenizer,
        runtime_session,
        weights,
        provider,
        threads,
        load_ms,
        onnxruntime.__version__,
    )


def _cannot_load(
    layout: ModelLayout, provider: str, version: str, error: Exception
) -> ArtifactError:
    reason = first_line(error)
    if layout.manifest is not None:
        fix = "upgrade onnxruntime or export again"
    elif "is not a registered function/op" in str(error):
        fix = "it has operators of another library, which cannot be measured"
    else:
        fix = "upgrade onnxruntime, or write the file again"
    on = "" if provider == CPU else f" on {provider}"
    return ArtifactError(
        f"{layout.graph}: onnxruntime {version} cannot load it{on} ({reason}); {fix}"
    )


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, whichever of its two packages is installed.

    Raises:
        MachineError: neither is, both are (they overwrite each other's files), or it is broken.
    """
    installed = [
        name for name in ("onnxruntime", "onnxruntime-gpu") if _distribution_installed(name)
    ]
    if len(installed) == 2:
        raise MachineError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "uninstall both, then install one of them"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError(
            f"onnxruntime cannot be imported ({first_line(error)}); "
            "install it with: pip install 'smp-pipeline[cpu]' (or [gpu])"
        ) from error
    module: ModuleType = onnxruntime
    return module


def _distribution_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _identity(path: Path) -> tuple[int, ...]:
    """Changes when a file is replaced or written to."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
