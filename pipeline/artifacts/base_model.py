"""The base model of a run or a delta: its encoder, and what its files hold beside that."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from pipeline.artifacts.classifier import (
    encoder_sha256,
    load_encoder,
    model_errors,
)
from pipeline.artifacts.run import BaseModel
from pipeline.errors import ModelError

__all__ = ["BaseFiles", "load_base_encoder", "tensor_sha256"]


def load_base_encoder(
    base: BaseModel, model: str | None, *, owner: str, flag: str = "--model"
) -> PreTrainedModel:
    """Load the base model's encoder and check that it is the one.

    Args:
        base: what the manifest says of it.
        model: where it is, if it is not where the manifest says.
        owner: what the manifest belongs to, for messages.
        flag: what names the base model, for messages.

    Raises:
        ModelError: it is missing, or another one.
    """
    files = BaseFiles.locate(base, model)
    try:
        encoder = load_encoder(files.model, revision=files.revision, flag=flag)
    except ModelError as error:
        if model is not None or flag != "--model":
            raise
        raise ModelError(
            f"{error}; {owner} names that base model: if it is elsewhere now, give it with --model"
        ) from error
    digest = encoder_sha256(encoder)
    if digest != base.sha256:
        raise ModelError(
            f"{flag} {files.model} has weights of hash {digest[:12]}, {owner} belongs to "
            f"{base.id} with hash {base.sha256[:12]}; give that model"
        )
    return encoder


def tensor_sha256(tensor: torch.Tensor) -> str:
    """A SHA-256 over a tensor's bytes as float32."""
    return hashlib.sha256(tensor.float().contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class BaseFiles:
    """The files of a base model, in its directory or in the hub's cache.

    Attributes:
        model: a local directory or a hub id.
        revision: the hub revision.
    """

    model: str
    revision: str | None

    @classmethod
    def locate(cls, base: BaseModel, model: str | None) -> "BaseFiles":
        """The files of ``base``, or of ``model`` if it is given in its place."""
        model = model or base.id
        return cls(model, base.revision if model == base.id else None)

    def tokenizer(self) -> dict[str, bytes]:
        """File name -> content of the tokenizer as training saves it.

        Raises:
            ModelError: it cannot be loaded.
        """
        with model_errors(self.model) as source, tempfile.TemporaryDirectory() as directory:
            tokenizer = AutoTokenizer.from_pretrained(
                source, revision=self.revision, trust_remote_code=False
            )
            # Training fills up and cuts by itself; a checkpoint may ask the tokenizer for both.
            tokenizer.padding_side = "right"
            if tokenizer.is_fast:
                tokenizer.backend_tokenizer.no_padding()
                tokenizer.backend_tokenizer.no_truncation()
            tokenizer.save_pretrained(directory)
            files = [path for path in Path(directory).iterdir() if path.is_file()]
            return {path.name: path.read_bytes() for path in files}

    def equal_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Which of some tensors the checkpoint has too, bit for bit.

        Args:
            tensors: name -> float32 tensor.

        Returns:
            name -> the first name in the checkpoint of an equal tensor, for those that have one.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        wanted = {name: (tensor.shape, tensor_sha256(tensor)) for name, tensor in tensors.items()}
        shapes = {tuple(shape) for shape, _ in wanted.values()}
        equal: dict[str, str] = {}
        with model_errors(self.model) as source:
            for path in self._checkpoint(source):
                with safe_open(path, framework="pt") as file:
                    for key in sorted(file.keys()):
                        if tuple(file.get_slice(key).get_shape()) not in shapes:
                            continue
                        tensor = file.get_tensor(key)
                        found = (tensor.shape, tensor_sha256(tensor))
                        for name in (name for name, facts in wanted.items() if facts == found):
                            equal.setdefault(name, key)
        return equal

    def read_tensors(self, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
        """Read tensors of the checkpoint.

        Args:
            names: key in the result -> name in the checkpoint.

        Returns:
            float32 tensors of their own memory, without those that the checkpoint does not have.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        if not names:
            return {}
        read: dict[str, torch.Tensor] = {}
        with model_errors(self.model) as source:
            for path in self._checkpoint(source):
                with safe_open(path, framework="pt") as file:
                    present = set(file.keys())
                    read |= {
                        key: file.get_tensor(name).to(torch.float32, copy=True)
                        for key, name in names.items()
                        if name in present
                    }
        return read

    def _checkpoint(self, source: str) -> list[str]:
        """Paths of the checkpoint's safetensors files; none where transformers knows no names."""
        whole = self._cached(source, SAFE_WEIGHTS_NAME)
        if whole is not None:
            return [whole]
        index = self._cached(source, SAFE_WEIGHTS_INDEX_NAME)
        if index is None:
            return []
        paths, _ = get_checkpoint_shard_files(source, index, revision=self.revision)
        return sorted(paths)

    def _cached(self, source: str, name: str) -> str | None:
        path: str | None = cached_file(
            source,
            name,
            revision=self.revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return path
