"""The delta directory: what `export --format delta` leaves and `export --from-delta` reads.

    DELTA/
      manifest.json      this module's DeltaManifest, the run's manifest included
      delta.safetensors  ``masks``: the masks, coded given the base model's weights
                         ``head.NAME``: the head's tensors that the base model does not have
                         ``tokenizer.FILE``: the tokenizer's files, deflated, that the base model
                         does not give
      README.md          what it is and how to use it

With the base model it has everything that a run directory has.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.artifacts.files import read_json, sha256_file
from pipeline.artifacts.manifest import from_json, to_json
from pipeline.artifacts.mask_codec import entropy_bound_bits
from pipeline.artifacts.run import RunManifest, trains_weights
from pipeline.errors import ArtifactError

__all__ = [
    "DELTA_FILE",
    "KIND",
    "MANIFEST_FILE",
    "BaseTensor",
    "DeltaContent",
    "DeltaManifest",
    "TokenizerFile",
    "masks_sha256",
    "read_content",
    "read_delta",
    "write_content",
    "write_delta_manifest",
]

KIND = "smp-delta"
SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
DELTA_FILE = "delta.safetensors"

_MASKS, _HEAD, _TOKENIZER = "masks", "head.", "tokenizer."
_DTYPES = {_MASKS: "U8", _HEAD: "F32", _TOKENIZER: "U8"}
# Weights of one matrix, far beyond any model's: the masks' entropy is computed in 64 bits.
_LARGEST_MATRIX = 2**48


@dataclass(frozen=True)
class BaseTensor:
    """A tensor of the head that the base model's checkpoint has too.

    Attributes:
        name: its name in the checkpoint.
        sha256: hash of its bytes as float32.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class TokenizerFile:
    """One file of the run's tokenizer.

    Attributes:
        sha256: its hash.
        size_bytes: its size.
        stored: whether the delta has it; else the base model gives it.
    """

    sha256: str
    size_bytes: int
    stored: bool


@dataclass(frozen=True)
class DeltaManifest:
    """Everything about a delta that is no tensor.

    Attributes:
        smp_pipeline_version: the version that wrote it.
        run: the run's manifest.
        delta_sha256: hash of delta.safetensors.
        masks_sha256: hash of the decoded masks (:func:`masks_sha256`).
        masks_bytes: size of the coded masks.
        head_bytes: size of the head's tensors that are stored.
        tokenizer_bytes: size of the tokenizer's files that are stored, deflated.
        head_from_base: name in the head -> the base model's tensor that it equals.
        tokenizer: file name -> that file of the tokenizer.
    """

    smp_pipeline_version: str
    run: RunManifest
    delta_sha256: str
    masks_sha256: str
    masks_bytes: int
    head_bytes: int
    tokenizer_bytes: int
    head_from_base: Mapping[str, BaseTensor]
    tokenizer: Mapping[str, TokenizerFile]

    @property
    def bits_per_weight(self) -> float:
        """Bits of coded mask for each weight of the pruned matrices."""
        return 8 * self.masks_bytes / self._weights

    @property
    def bound_bits_per_weight(self) -> float:
        """Entropy of the masks, by weight, where only each matrix's density is known."""
        matrices = self.run.matrices.values()
        sizes, kept = [m.size for m in matrices], [m.kept for m in matrices]
        return entropy_bound_bits(sizes, kept) / self._weights

    @property
    def _weights(self) -> int:
        return max(1, sum(matrix.size for matrix in self.run.matrices.values()))

    def summary(self) -> str:
        """How small the masks are, for people, in one line."""
        return (
            f"masks of {self.masks_bytes:,} bytes, {self.bits_per_weight:.3f} bits a weight (the "
            f"entropy of their densities is {self.bound_bits_per_weight:.3f}); "
            f"head {self.head_bytes:,} bytes, tokenizer {self.tokenizer_bytes:,}"
        )


@dataclass(frozen=True)
class DeltaContent:
    """What delta.safetensors holds.

    Attributes:
        masks: the coded masks (:mod:`pipeline.artifacts.mask_codec`).
        head: name in the head -> float32 tensor.
        tokenizer: file name -> its bytes.
    """

    masks: bytes
    head: Mapping[str, NDArray[np.float32]]
    tokenizer: Mapping[str, bytes]


def masks_sha256(masks: Mapping[str, NDArray[np.bool_]]) -> str:
    """A SHA-256 over names and packed bits, sorted by name, as a run's masks.safetensors has it."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(name.encode() + b"\0")
        digest.update(np.packbits(masks[name].reshape(-1)).tobytes())
    return digest.hexdigest()


def write_content(directory: Path, content: DeltaContent) -> dict[str, int]:
    """Write ``delta.safetensors`` into a (staged) delta directory.

    Returns:
        the manifest's ``masks_bytes``, ``head_bytes`` and ``tokenizer_bytes``.
    """
    groups: dict[str, Mapping[str, NDArray[Any]]] = {
        _MASKS: {"": np.frombuffer(content.masks, np.uint8)},
        _HEAD: content.head,
        _TOKENIZER: {
            name: np.frombuffer(zlib.compress(data, 9), np.uint8)
            for name, data in content.tokenizer.items()
        },
    }
    tensors = {f"{group}{name}": t for group, some in groups.items() for name, t in some.items()}
    save_file(tensors, str(directory / DELTA_FILE))
    return _sizes(groups)


def _sizes(groups: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, int]:
    """The manifest's fields ``masks_bytes``, ``head_bytes`` and ``tokenizer_bytes``."""
    return {
        f"{group.rstrip('.')}_bytes": sum(tensor.nbytes for tensor in some.values())
        for group, some in groups.items()
    }


def write_delta_manifest(directory: Path, manifest: DeltaManifest) -> None:
    """Write ``manifest.json`` into a (staged) delta directory."""
    content = {"kind": KIND, "schema_version": SCHEMA_VERSION, **to_json(manifest)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")


def read_delta(directory: Path) -> DeltaManifest:
    """Read and check a delta directory's manifest, and that its file is there.

    Raises:
        ArtifactError: no delta directory, of a newer schema, corrupt, or incomplete.
    """
    if not directory.is_dir():
        raise ArtifactError(
            f"{directory} is no delta directory; give what `smp-pipeline export --format delta` "
            "wrote"
        )
    path = directory / MANIFEST_FILE
    content = read_json(path, kind=KIND, schema_version=SCHEMA_VERSION)
    manifest = from_json(DeltaManifest, content, source=path)
    for name, matrix in manifest.run.matrices.items():
        is_matrix = len(matrix.shape) == 2 and min(matrix.shape) > 0
        if not is_matrix or not 0 <= matrix.kept <= matrix.size <= _LARGEST_MATRIX:
            raise ArtifactError(f"{path} is corrupt: {name} has no shape and count of a mask")
    if not manifest.run.matrices or trains_weights(manifest.run.method):
        raise ArtifactError(
            f"{path} is corrupt: it has no masks over the base model's weights; copy it again"
        )
    for name in manifest.tokenizer:
        if PurePath(name).name != name or name in ("", ".", ".."):
            raise ArtifactError(f"{path} is corrupt: {name!r} is no file of a tokenizer")
    if not (directory / DELTA_FILE).is_file():
        raise ArtifactError(f"{directory / DELTA_FILE} is missing; copy the delta again")
    return manifest


def read_content(directory: Path, manifest: DeltaManifest) -> DeltaContent:
    """Read ``delta.safetensors`` and check it against the manifest's hashes and sizes.

    Raises:
        ArtifactError: the file is truncated, corrupt, or not the manifest's.
    """
    path = directory / DELTA_FILE
    if sha256_file(path) != manifest.delta_sha256:
        raise ArtifactError(
            f"{path} is not the file that the manifest was written for; copy the delta again"
        )
    groups: dict[str, dict[str, NDArray[Any]]] = {_MASKS: {}, _HEAD: {}, _TOKENIZER: {}}
    try:
        with safe_open(str(path), framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - no mapping
                group = next((group for group in groups if key.startswith(group)), None)
                # NumPy has no name for some of safetensors' types, and fails in its own way.
                if group is None or file.get_slice(key).get_dtype() != _DTYPES[group]:
                    raise ArtifactError(f"{path} is corrupt: tensor {key} does not belong there")
                groups[group][key.removeprefix(group)] = file.get_tensor(key)
    except SafetensorError as error:
        raise ArtifactError(f"{path} is truncated or corrupt ({error}); copy it again") from error
    stored = {name for name, facts in manifest.tokenizer.items() if facts.stored}
    if set(groups[_MASKS]) != {""} or set(groups[_TOKENIZER]) != stored:
        raise ArtifactError(f"{path} is corrupt: it does not hold what its manifest says")
    content = DeltaContent(
        masks=groups[_MASKS][""].tobytes(),
        head={name: tensor.astype(np.float32) for name, tensor in groups[_HEAD].items()},
        tokenizer={
            name: _inflate(path, name, data.tobytes(), manifest.tokenizer[name])
            for name, data in groups[_TOKENIZER].items()
        },
    )
    sizes = _sizes(groups)
    if sizes != {name: getattr(manifest, name) for name in sizes}:
        raise ArtifactError(f"{path} is corrupt: its manifest has other sizes; copy it again")
    return content


def _inflate(path: Path, name: str, data: bytes, facts: TokenizerFile) -> bytes:
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, max(0, facts.size_bytes) + 1)
    except (zlib.error, OverflowError) as error:
        raise ArtifactError(f"{path} is corrupt: {name} cannot be inflated ({error})") from error
    if hashlib.sha256(content).hexdigest() != facts.sha256:
        raise ArtifactError(f"{path} is corrupt: {name} has another hash; copy the delta again")
    return content
