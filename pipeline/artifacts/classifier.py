"""The model of a run: an unchanged Hugging Face encoder, a pooling, a small head. Needs torch."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.activations import ACT2FN

from pipeline.artifacts.run import HeadLayout
from pipeline.errors import ArtifactError, ModelError

__all__ = [
    "Head",
    "TextClassifier",
    "encoder_sha256",
    "load_encoder",
    "load_head",
    "model_errors",
    "model_source",
]


class Head(nn.Module):
    """From a state to logits: optional dense, activation, LayerNorm; then a linear map.

    Args:
        layout: shapes and kinds; tensors start at zero and are filled in by the caller.
    """

    def __init__(self, layout: HeadLayout) -> None:
        super().__init__()
        size = layout.hidden_size
        self.transform: nn.Module | None = None
        if layout.transform is not None:
            size = layout.transform.size
            self.transform = nn.Sequential(
                nn.Linear(layout.hidden_size, size),
                ACT2FN[layout.transform.activation],
                nn.LayerNorm(size, eps=layout.transform.layer_norm_eps),
            )
        self.output = nn.Linear(size, layout.outputs)

    def forward(self, state: Tensor) -> Tensor:
        """Map states, float [..., hidden_size], to logits, float [..., outputs]."""
        if self.transform is not None:
            state = self.transform(state)
        logits: Tensor = self.output(state)
        return logits


class TextClassifier(nn.Module):
    """Encoder, pooling and head as one module; what is trained, baked and exported.

    Args:
        encoder: a model that `AutoModel` gives, taken as it is.
        head: the head.
        layout: the head's layout, for the pooling.
    """

    def __init__(self, encoder: PreTrainedModel, head: Head, layout: HeadLayout) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.layout = layout

    def pool(self, states: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One state a text, or for pooling ``tokens`` all of them.

        Args:
            states: float [batch, sequence, hidden].
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 1 at real tokens.

        Returns:
            float [batch, hidden]; for ``tokens`` [batch, sequence, hidden].
        """
        if self.layout.pooling == "tokens":
            return states
        if self.layout.pooling == "mean":
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
        if self.layout.pooling == "mask":
            # argmax gives the first mask token, and position 0 where there is none.
            position = input_ids.eq(self.layout.mask_token_id or 0).long().argmax(dim=1)
            index = position.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
            return states.gather(1, index).squeeze(1)
        return states[:, 0]

    def features(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The states that the head sees, float [batch, hidden] or [batch, sequence, hidden]."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        states = self.encoder(**inputs).last_hidden_state
        return self.pool(states, input_ids, attention_mask)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits of token ids and masks, int64 [batch, sequence].

        Returns:
            float [batch, outputs]; for pooling ``tokens`` [batch, sequence, outputs].
        """
        logits: Tensor = self.head(self.features(input_ids, attention_mask, token_type_ids))
        return logits


def model_source(model: str) -> str:
    """What transformers should load for a ``--model``: a directory with ~ expanded, or a hub id."""
    directory = Path(os.path.expanduser(model))  # noqa: PTH111 - Path's fails on ~name of nobody
    return str(directory) if directory.is_dir() else model


@contextmanager
def model_errors(model: str, *, flag: str = "--model") -> Iterator[str]:
    """Check a model's name, give what transformers should load, and map what that raises.

    Args:
        model: a local directory or a hub id.
        flag: what named it, for messages.

    Raises:
        ModelError: it is not there, is not what its configuration says, or holds pickles only.
    """
    source = model_source(model)
    directory = Path(source)
    looks_local = model.count("/") > 1 or model.startswith((".", "/", "~"))
    if looks_local and not directory.is_dir():
        raise ModelError(f"{flag} {model}: no such directory; give a directory or a hub id")
    if any(directory.glob("*.bin")) and not any(directory.glob("*.safetensors")):
        raise ModelError(
            f"{flag} {model}: has pickled weights only, which can run code when they are read; "
            "convert them to safetensors"
        )
    try:
        yield source
    except Exception as error:  # a broken configuration raises errors of any type in there
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = 2 if lines and lines[0].endswith(":") else 1
        reason = " ".join(lines[:first]) or type(error).__name__
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights have other shapes than its config.json says"
        elif not directory.is_dir():
            reason = f"no such directory, and not from the hub: {reason}"
        raise ModelError(f"{flag} {model}: cannot be loaded ({reason})") from error


def load_encoder(
    model: str, *, revision: str | None = None, flag: str = "--model"
) -> PreTrainedModel:
    """Load a pretrained encoder in float32 and evaluation mode, from safetensors only.

    Args:
        model: a local directory or a hub id.
        revision: the hub revision.
        flag: what named it, for messages.

    Raises:
        ModelError: it is not there, has no safetensors weights or some that are not finite, or
            is no encoder.
    """
    with model_errors(model, flag=flag) as source:
        encoder, loading = AutoModel.from_pretrained(
            source,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    # The pooler of BERT-like models is random in most checkpoints, and no head of ours uses it.
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"{flag} {model}: {len(missing)} weights are missing from the checkpoint, "
            f"for instance {missing[0]}; give a complete pretrained encoder"
        )
    for name, parameter in encoder.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"{flag} {model}: {name} has values that are not finite; give another checkpoint"
            )
    loaded: PreTrainedModel = encoder
    return loaded.eval()


def encoder_sha256(encoder: nn.Module) -> str:
    """A SHA-256 over names, dtypes, shapes and bytes of an encoder's parameters, sorted by name.

    Take it before anything is attached to the encoder.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.named_parameters()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{data.dtype}\0{tuple(data.shape)}\0".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_head(path: Path, layout: HeadLayout) -> Head:
    """Rebuild the head from its layout and ``head.safetensors``.

    Raises:
        ArtifactError: the file is truncated, corrupt, or does not fit the layout.
    """
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is truncated or corrupt ({error}); train again") from error
    try:
        with torch.device("meta"):  # a manifest's sizes take memory only once the file has them
            head = Head(layout)
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        head.load_state_dict(tensors, strict=True, assign=True)
    except (RuntimeError, KeyError) as error:  # KeyError: an activation of no known name
        raise ArtifactError(f"{path} does not fit the head in the manifest; train again") from error
    return head
