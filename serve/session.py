"""An exported model, opened in ONNX Runtime: texts in, logits out. Needs no torch."""

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline import native
from pipeline.artifacts.exported import (
    DATA_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportManifest,
    read_exported,
)
from pipeline.artifacts.files import sha256_file
from pipeline.errors import ArtifactError, MachineError
from pipeline.machine import usable_cores
from serve.shared_runtime import SharedRuntime
from serve.shared_weights import SharedWeights
from serve.weak_cache import Held, WeakCache

__all__ = ["Session", "TokenRow", "import_onnxruntime", "open_session"]

# The graph's input -> the attribute of the tokenizer's encoding.
_ENCODING_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}


_tokenizers: WeakCache[Tokenizer] = WeakCache()


class TokenRow(NamedTuple):
    """One text in tokens, without padding, named as the tokenizers library names them."""

    ids: list[int]
    attention_mask: list[int]
    type_ids: list[int]


class Session:
    """One model in memory; made by :func:`open_session`.

    Attributes:
        directory: the model directory.
        manifest: what the export said of it.
        threads: intra-op threads.
        load_ms: time that ONNX Runtime took to create its session.
        runtime_version: ONNX Runtime's version.
    """

    def __init__(
        self,
        directory: Path,
        manifest: ExportManifest,
        tokenizer: Held[Tokenizer],
        runtime_session: Any,
        weights: SharedWeights | None,
        threads: int,
        load_ms: float,
        runtime_version: str,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.threads = threads
        self.load_ms = load_ms
        self.runtime_version = runtime_version
        self._held_tokenizer = tokenizer
        self._tokenizer = tokenizer.value
        self._runtime_session = runtime_session
        self._weights = weights  # after the session that reads them, so that they go after it

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def outputs(self) -> int:
        """Logits a text."""
        return max(1, len(self.manifest.task.labels))

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Tokenise texts (or pairs), cut at the model's ``max_length``, not padded."""
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        # "fast" leaves out offsets, which nobody reads.
        return list(self._tokenizer.encode_batch_fast(inputs))

    def collate(self, rows: Sequence[Encoding | TokenRow]) -> dict[str, NDArray[np.int64]]:
        """Pad rows to the longest of them: input name -> int64 [batch, sequence]."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        inputs = {}
        for name in self.manifest.inputs:
            filler = self.manifest.pad_token_id if name == "input_ids" else 0
            inputs[name] = np.full(shape, filler, dtype=np.int64)
            for index, row in enumerate(rows):
                values = getattr(row, _ENCODING_FIELDS[name])
                inputs[name][index, : len(values)] = values
        return inputs

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Run the graph once.

        Args:
            inputs: input name -> int64 [batch, sequence].

        Returns:
            float32 [batch, outputs].

        Raises:
            ArtifactError: ONNX Runtime cannot run the graph on them.
        """
        try:
            (logits,) = self._runtime_session.run(["logits"], dict(inputs))
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            batch, length = inputs["input_ids"].shape
            raise ArtifactError(
                f"{self.directory / MODEL_FILE}: onnxruntime cannot run {batch} texts of {length} "
                f"tokens ({_first_line(error)})"
            ) from error
        result: NDArray[np.float32] = logits
        if result.ndim != 2 or result.shape[1] != self.outputs:
            raise ArtifactError(
                f"{self.directory / MODEL_FILE}: expected {self.outputs} logits a text as its "
                f"manifest says, got shape {list(result.shape)}; export the model again"
            )
        return result

    def logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Logits, float32 [batch, outputs], of one batch of texts or text pairs."""
        if not texts:
            return np.empty((0, self.outputs), dtype=np.float32)
        return self.run(self.collate(self.encode(texts, pairs)))

    def end_profiling(self) -> Path:
        """Stop ONNX Runtime's profiler and write its events; returns the JSON file."""
        return Path(self._runtime_session.end_profiling())


def open_session(
    directory: Path,
    *,
    threads: int = 0,
    profile_prefix: str | None = None,
    shared: SharedRuntime | None = None,
) -> Session:
    """Open a model directory on the CPU and check that it is whole.

    Args:
        directory: what `smp-pipeline export` wrote.
        threads: intra-op threads; 0 takes all cores that the process may use.
        profile_prefix: have ONNX Runtime profile all runs into a file whose path starts so; see
            :meth:`Session.end_profiling`.
        shared: share with all sessions of the process that are opened so what is equal (tokenizer,
            embeddings, the engine's weights) and what only one needs at a time (working memory,
            threads; ``threads`` is ignored). The logits are the same.

    Raises:
        ArtifactError: a file is missing, corrupt, does not fit the manifest, or was replaced while
            it was read.
        ConfigurationError: SMP_ENGINE_ISA asks for an instruction set that cannot be had.
        MachineError: ONNX Runtime is not installed, or twice; or the model is of the format
            ``engine`` and the native library is missing.
    """
    onnxruntime = import_onnxruntime()
    manifest = read_exported(directory)
    path = directory / MODEL_FILE
    files = [path, directory / TOKENIZER_FILE]
    if manifest.data_sha256 is not None:
        files.append(directory / DATA_FILE)
    before = [_identity(file) for file in files]
    _check_hash(path, manifest.model_sha256)
    if manifest.data_sha256 is not None:
        _check_hash(directory / DATA_FILE, manifest.data_sha256)
    tokenizer = _hold_tokenizer(directory / TOKENIZER_FILE, manifest, shared is not None)
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
    if manifest.format == "engine":
        native.register(options)
    weights = None
    start = time.perf_counter()
    if shared is not None:
        shared.configure(onnxruntime, options, engine=manifest.format == "engine")
        weights = SharedWeights(onnxruntime, path, options)
    try:
        runtime_session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise ArtifactError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load it "
            f"({_first_line(error)}); upgrade onnxruntime or export again"
        ) from error
    load_ms = (time.perf_counter() - start) * 1000.0
    if [_identity(file) for file in files] != before:
        raise ArtifactError(f"{directory} was replaced while it was read; open it again")
    if weights is not None:
        weights.drop_encoded()
    _check_graph(path, manifest, runtime_session)
    return Session(
        directory,
        manifest,
        tokenizer,
        runtime_session,
        weights,
        threads,
        load_ms,
        onnxruntime.__version__,
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
            f"onnxruntime cannot be imported ({_first_line(error)}); "
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


def _check_hash(path: Path, expected: str) -> None:
    if sha256_file(path) != expected:
        raise ArtifactError(
            f"{path} is truncated or was changed: its hash is not the manifest's; "
            "copy the directory again or export again"
        )


def _identity(path: Path) -> tuple[int, ...]:
    """Changes when a file is replaced or written to."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _hold_tokenizer(path: Path, manifest: ExportManifest, shared: bool) -> Held[Tokenizer]:
    if not shared:
        return Held(_load_tokenizer(path, manifest))
    key = (sha256_file(path), manifest.task.max_length)
    return _tokenizers.get(key, lambda: _load_tokenizer(path, manifest))


def _load_tokenizer(path: Path, manifest: ExportManifest) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(manifest.task.max_length)
        tokenizer.encode("")
    except Exception as error:  # tokenizers raises plain Exception
        raise ArtifactError(
            f"{path} is corrupt or of a newer tokenizers ({_first_line(error)}); "
            "copy the directory again or export again"
        ) from error
    return tokenizer


def _check_graph(path: Path, manifest: ExportManifest, runtime_session: Any) -> None:
    found = {entry.name: entry.type for entry in runtime_session.get_inputs()}
    if set(found) != set(manifest.inputs) or "input_ids" not in found:
        raise ArtifactError(
            f"{path}: expected the inputs {', '.join(manifest.inputs)} as the manifest says, "
            f"got {', '.join(found)}; export the model again"
        )
    unknown = sorted(set(found) - set(_ENCODING_FIELDS))
    if unknown:
        raise ArtifactError(
            f"{path}: no tokenizer gives the input {unknown[0]}; known are "
            f"{', '.join(_ENCODING_FIELDS)}; export the model again"
        )
    wrong = sorted(name for name, kind in found.items() if kind != "tensor(int64)")
    if wrong:
        raise ArtifactError(
            f"{path}: input {wrong[0]} must be int64, is {found[wrong[0]]}; export the model again"
        )
    outputs = [(entry.name, entry.type) for entry in runtime_session.get_outputs()]
    if outputs != [("logits", "tensor(float)")]:
        raise ArtifactError(
            f"{path}: expected one float32 output 'logits', got "
            f"{', '.join(f'{name} ({kind})' for name, kind in outputs)}; export the model again"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
