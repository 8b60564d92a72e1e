"""What the files beside an ONNX file of others say: tokenizer, longest text, padding, labels.

The names are those of transformers and optimum. The files are untrusted: sizes and types are
checked before anything is used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.exported import DATA_FILE, MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE
from pipeline.errors import ArtifactError, ConfigurationError
from serve.onnx_initializers import read_initializers

__all__ = ["ForeignFacts", "find_graph", "foreign_facts", "is_ours"]

_CONFIG = "config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_LARGEST_JSON_BYTES = 64 << 20
# Tokens, beyond any model's; transformers writes 10^30 for "no limit".
_LONGEST = 1 << 20
_MOST_LABELS = 1 << 20
# Their positions start behind the padding token's id, so that the table has entries nobody may use.
_POSITIONS_BEHIND_PADDING = ("camembert", "longformer", "mpnet", "roberta", "xlm-roberta")
_SUBDIRECTORY = "onnx"
# As optimum names the weights of a large graph.
_OTHER_DATA_SUFFIX = "_data"


@dataclass(frozen=True)
class ForeignFacts:
    """What is known of an ONNX file of others; see :class:`serve.layout.ModelLayout`."""

    data: tuple[Path, ...]
    tokenizer: Path
    others: tuple[Path, ...]
    max_length: int
    pad_token: str | int | None
    labels: tuple[str, ...] | None
    labelled: bool


def is_ours(directory: Path) -> bool:
    """Whether a directory has a manifest of this project, even a corrupt one."""
    path = directory / MANIFEST_FILE
    if not path.is_file():
        return False
    try:
        kind = _read_object(path).get("kind")
    except ArtifactError:
        return True
    return isinstance(kind, str) and kind.startswith("smp-")


def find_graph(path: Path) -> Path:
    """The ONNX file that a path means: itself, or the one in the directory, or in its ``onnx/``.

    Raises:
        ArtifactError: there is none, or there are several and none is named model.onnx.
    """
    if path.is_file():
        if path.suffix != ".onnx":
            raise ArtifactError(f"{path} is no .onnx file; give an ONNX file or a model directory")
        return path
    if not path.is_dir():
        raise ArtifactError(
            f"{path} is no model directory and no ONNX file; give what "
            "`smp-pipeline export --output-dir` wrote, or any .onnx file"
        )
    for directory in (path, path / _SUBDIRECTORY):
        if (directory / MODEL_FILE).is_file():
            return directory / MODEL_FILE
        found = sorted(directory.glob("*.onnx"))
        if len(found) == 1:
            return found[0]
        if found:
            raise ArtifactError(
                f"{directory} has {len(found)} ONNX files "
                f"({', '.join(file.name for file in found[:3])}{', ...' if found[3:] else ''}) "
                f"and none is {MODEL_FILE}; give the file that is meant"
            )
    raise ArtifactError(
        f"{path} has no {MANIFEST_FILE} of ours and no ONNX file; give what "
        "`smp-pipeline export --output-dir` wrote, or any .onnx file"
    )


def foreign_facts(
    graph: Path, tokenizer: Path | None, max_length: int | None, labels: tuple[str, ...] = ()
) -> ForeignFacts:
    """Read what lies beside an ONNX file.

    Args:
        graph: the ONNX file.
        tokenizer: the directory of tokenizer.json, if it is not the file's own (or the one above,
            where that is named ``onnx``).
        max_length: longest text in tokens, if the files are not to decide.
        labels: label names in the order of the logits, if the files are not to decide.

    Raises:
        ArtifactError: tokenizer.json is missing, or a file is malformed.
        ConfigurationError: neither ``max_length`` nor any file says how long a text may be.
    """
    home = tokenizer or next(
        (place for place in _homes(graph) if (place / TOKENIZER_FILE).is_file()), graph.parent
    )
    if home.is_file() and home.name == TOKENIZER_FILE:
        home = home.parent
    tokenizer_file = home / TOKENIZER_FILE
    if not tokenizer_file.is_file():
        raise ArtifactError(
            f"{tokenizer_file} is missing, which turns texts into the inputs of {graph.name}; give "
            "the directory that has it with --tokenizer (transformers' save_pretrained writes it "
            "for fast tokenizers)"
        )
    # The graph's own config.json knows its labels; the tokenizer's may be the base model's.
    places = [place / _CONFIG for place in dict.fromkeys((*_homes(graph), home))]
    config_file = next((place for place in places if place.is_file()), None)
    tokenizer_config_file = home / _TOKENIZER_CONFIG
    config = {} if config_file is None else _read_object(config_file)
    tokenizer_config = (
        _read_object(tokenizer_config_file) if tokenizer_config_file.is_file() else {}
    )
    others = [config_file, tokenizer_config_file if tokenizer_config else None]
    return ForeignFacts(
        data=_data_files(graph),
        tokenizer=tokenizer_file,
        others=tuple(path for path in others if path is not None),
        max_length=max_length or _max_length(config, tokenizer_config, graph),
        pad_token=_pad_token(config, tokenizer_config),
        labels=labels or (None if config_file is None else _labels(config, config_file)),
        labelled=config.get("problem_type") != "multi_label_classification",
    )


def _homes(graph: Path) -> list[Path]:
    """Where the files that belong to a graph may lie."""
    here = graph.absolute().parent
    return [graph.parent, graph.parent.parent] if here.name == _SUBDIRECTORY else [graph.parent]


def _data_files(graph: Path) -> tuple[Path, ...]:
    names = {initializer.file for initializer in read_initializers(graph)} - {None}
    # A graph with subgraphs names none, see read_initializers; these are the usual names.
    names |= {graph.name + DATA_FILE.removeprefix(MODEL_FILE), graph.name + _OTHER_DATA_SUFFIX}
    # ONNX Runtime reads no others than those below the graph's directory either.
    paths = [graph.parent / name for name in sorted(filter(None, names))]
    here = graph.parent.absolute()
    return tuple(
        path
        for path in paths
        if ".." not in path.parts and path.absolute().is_relative_to(here) and path.is_file()
    )


def _max_length(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], graph: Path) -> int:
    length = _count(tokenizer_config.get("model_max_length"))
    if length is None:
        length = _count(config.get("max_position_embeddings"))
        padding = config.get("pad_token_id")
        behind = config.get("model_type") in _POSITIONS_BEHIND_PADDING
        if length is not None and behind and type(padding) is int:
            length = _count(length - padding - 1)
    if length is None:
        raise ConfigurationError(
            f"--max-length is needed for {graph}: neither {_TOKENIZER_CONFIG} (model_max_length) "
            f"nor {_CONFIG} (max_position_embeddings) says how many tokens a text may have"
        )
    return length


def _count(value: Any) -> int | None:
    return value if type(value) is int and 2 <= value <= _LONGEST else None


def _pad_token(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> str | int | None:
    token = tokenizer_config.get("pad_token")
    if isinstance(token, dict):  # an AddedToken
        token = token.get("content")
    if isinstance(token, str):
        return token
    padding = config.get("pad_token_id")
    return padding if type(padding) is int and 0 <= padding < 2**31 else None


def _labels(config: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    """The names of ``id2label`` in the order of their ids; None where there are none."""
    names = config.get("id2label")
    if names is None:
        return None
    if not isinstance(names, dict) or len(names) > _MOST_LABELS:
        raise ArtifactError(f"{path}: id2label must be an object; mend it, or give --labels")
    ordered = tuple(names.get(str(index)) for index in range(len(names)))
    if not all(isinstance(name, str) for name in ordered):
        raise ArtifactError(
            f"{path}: id2label must name each id from 0 to {len(names) - 1}; mend it, or give "
            "--labels"
        )
    if len(set(ordered)) != len(ordered):
        raise ArtifactError(f"{path}: id2label has a name twice; mend it, or give --labels")
    return tuple(map(str, ordered))


def _read_object(path: Path) -> Mapping[str, Any]:
    size = path.stat().st_size
    if size > _LARGEST_JSON_BYTES:
        raise ArtifactError(
            f"{path} has {size} bytes, at most {_LARGEST_JSON_BYTES} are read; copy the model again"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is no JSON ({error}); copy the model again") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} must hold a JSON object; copy the model again")
    return content
