"""config.json and tokenizer files, as transformers' and optimum's classes want them."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from optimum.exporters.tasks import TasksManager
from transformers import PretrainedConfig

from pipeline.artifacts.run import TaskKind, TaskLayout
from pipeline.errors import ModelError

__all__ = ["write_config", "write_tokenizer"]

# What transformers' classes are found by, and what they are for.
_CLASSES: Mapping[TaskKind, tuple[str, str]] = {
    "classification": ("text-classification", "sequence classification"),
    "regression": ("text-classification", "sequence classification"),
    "question-answering": ("question-answering", "question answering"),
    "token-classification": ("token-classification", "token classification"),
}


def write_config(directory: Path, encoder_config: PretrainedConfig, task: TaskLayout) -> None:
    """Write ``config.json`` of the class for the task of the encoder's architecture.

    Raises:
        ModelError: transformers has no such class for the architecture.
    """
    model_type = str(encoder_config.model_type)
    found_by, purpose = _CLASSES[task.kind]
    try:
        auto_class = TasksManager.get_model_class_for_task(
            found_by, model_type=model_type, library="transformers"
        )
        architecture = auto_class._model_mapping[type(encoder_config)].__name__
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"transformers has no {purpose} model of type {model_type!r}; choose another base model"
        ) from error
    config = deepcopy(encoder_config)
    config.architectures = [architecture]
    if task.kind == "regression":
        config.num_labels = 1
        config.problem_type = "regression"
    elif task.kind == "classification":
        config.problem_type = "single_label_classification"
    if task.labels:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: index for index, label in enumerate(task.labels)}
    content = config.to_diff_dict()
    content.pop("_name_or_path", None)  # a path of this machine
    _write_json(directory / "config.json", content)


def write_tokenizer(directory: Path, tokenizer: Any, max_length: int) -> None:
    """Write the tokenizer files, with the length at which the model's texts were cut.

    Args:
        directory: the (staged) model directory.
        tokenizer: a fast tokenizer of transformers.
        max_length: tokens after which a text is cut, special tokens included.
    """
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # transformers 5 names its generic class anew; this name is known to 4 and 5 alike.
    if content.get("tokenizer_class") in (None, "TokenizersBackend"):
        content["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("name_or_path", "tokenizer_file", "is_local", "local_files_only"):
        content.pop(key, None)
    _write_json(path, content)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
