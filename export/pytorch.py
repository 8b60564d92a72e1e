"""A model in PyTorch itself, as the benchmark's engines `pytorch` and `pytorch-compiled` run it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from pipeline.artifacts.classifier import model_errors, model_source
from pipeline.artifacts.run import MANIFEST_FILE, TaskKind, read_run
from pipeline.artifacts.trained import load_run
from pipeline.errors import MachineError, ModelError

__all__ = ["load_pytorch"]

_FLAG = "--pytorch-model"
Run = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]

# The class of each kind of task, and what its head is for.
_CLASSES: Mapping[TaskKind, tuple[Any, str]] = {
    "classification": (AutoModelForSequenceClassification, "sequence classification"),
    "regression": (AutoModelForSequenceClassification, "sequence classification"),
    "question-answering": (AutoModelForQuestionAnswering, "question answering"),
    "token-classification": (AutoModelForTokenClassification, "token classification"),
}


def load_pytorch(model: str, *, kind: TaskKind, threads: int, compiled: bool) -> Run:
    """Load a model in float32 on the CPU.

    Args:
        model: a run directory, whose masks are multiplied in, or a Hugging Face directory or hub
            id with a head for the task.
        kind: of the task.
        threads: intra-op threads.
        compiled: run it through ``torch.compile``, for shapes of any size.

    Returns:
        Input name -> int64 [batch, sequence] to logits, float32 [batch, outputs]; [batch, sequence,
        outputs] for kinds of tokens.

    Raises:
        ArtifactError: the run directory is incomplete or corrupt.
        ModelError: the model cannot be loaded, or has no trained head.
    """
    directory = Path(model_source(model))
    module: nn.Module
    if (directory / MANIFEST_FILE).is_file():
        module = load_run(directory, read_run(directory), model=None).classifier
    else:
        module = _load_hugging_face(model, kind)
    call: Callable[..., Any] = torch.compile(module, dynamic=True) if compiled else module

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        try:
            with torch.inference_mode():
                found = call(**tensors)
        except Exception as error:
            raise _cannot_run(model, error, compiled=compiled) from error
        if hasattr(found, "start_logits"):
            found = torch.stack([found.start_logits, found.end_logits], dim=-1)
        logits: NDArray[np.float32] = (getattr(found, "logits", found)).numpy()
        return logits

    return run


def _load_hugging_face(model: str, kind: TaskKind) -> nn.Module:
    auto_class, purpose = _CLASSES[kind]
    with model_errors(model, flag=_FLAG) as source:
        classifier, loading = auto_class.from_pretrained(
            source,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"{_FLAG} {model}: {len(missing)} weights are missing from the checkpoint, for "
            f"instance {missing[0]}; give a fine-tuned model for {purpose}"
        )
    module: nn.Module = classifier.eval()
    return module


def _cannot_run(model: str, error: Exception, *, compiled: bool) -> ModelError | MachineError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    if compiled and type(error).__module__.startswith("torch._"):
        return MachineError(
            f"--peers pytorch-compiled: torch.compile fails on {model} ({reason}); it needs a C++ "
            "compiler, g++ for instance; install one, or leave this peer out"
        )
    return ModelError(f"{_FLAG} {model} cannot be run ({reason}); give another model")
