"""tokenizer.json with fewer tokens: every id in it is the new one."""

from collections.abc import Callable, Mapping, Set
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from export.vocabulary.needed import merged
from pipeline.errors import ModelError

__all__ = ["Rewritten", "model_vocabulary", "referenced_ids", "rewrite"]


@dataclass(frozen=True)
class Rewritten:
    """A tokenizer with fewer tokens.

    Attributes:
        content: its tokenizer.json.
        old_ids: the old id of each token, by new id.
    """

    content: dict[str, Any]
    old_ids: list[int]


def model_vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of the section ``model`` of a tokenizer.json, without tokens added to it."""
    if model["type"] == "Unigram":
        return {piece: index for index, (piece, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def referenced_ids(content: Mapping[str, Any]) -> set[int]:
    """The ids that a tokenizer.json names outside its vocabulary: special and added tokens."""
    found: set[int] = set()

    def note(index: int) -> int:
        found.add(index)
        return index

    _map_ids(content, note)
    return found


def rewrite(content: Mapping[str, Any], kept: Set[str], *, pinned: int | None) -> Rewritten:
    """Keep some of the model's tokens, and all added ones.

    They are numbered from 0 in their old order, tokens outside the model last (where the
    tokenizers library puts them).

    Args:
        content: a tokenizer.json; it stays as it is.
        kept: tokens of the model.
        pinned: a kept token's id that does not change, unless fewer tokens than that are left.

    Raises:
        ModelError: a processor names a token that is not in the vocabulary, or is of a kind whose
            ids are not known.
    """
    model = content["model"]
    vocabulary = model_vocabulary(model)
    order = sorted((index, token) for token, index in vocabulary.items() if token in kept)
    for position, (index, _) in enumerate(order):
        if index == pinned:
            order.insert(min(pinned, len(order) - 1), order.pop(position))
            break
    added = [(token["id"], token["content"]) for token in content["added_tokens"]]
    outside = sorted((index, token) for index, token in added if token not in vocabulary)
    new_ids = {old: new for new, (old, _) in enumerate([*order, *outside])}

    def renumber(index: int) -> int:
        if index not in new_ids:
            raise ModelError(
                f"the tokenizer names a token with id {index}, which is not in its vocabulary; "
                "leave out --prune-vocabulary"
            )
        return new_ids[index]

    result = _map_ids(content, renumber)
    result["added_tokens"].sort(key=lambda token: token["id"])
    if model["type"] == "Unigram":
        result["model"]["vocab"] = [model["vocab"][index] for index, _ in order]
    else:
        result["model"]["vocab"] = {token: new for new, (_, token) in enumerate(order)}
    if model["type"] == "BPE":
        result["model"]["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if {left, right, merged(model, left, right)} <= kept
        ]
    return Rewritten(result, list(new_ids))


def _map_ids(content: Mapping[str, Any], change: Callable[[int], int]) -> dict[str, Any]:
    """A copy without vocabulary and merges, with every other id changed."""
    model = {key: value for key, value in content["model"].items() if key not in _TABLES}
    result = deepcopy({**content, "model": model})
    if model.get("unk_id") is not None:
        result["model"]["unk_id"] = change(model["unk_id"])
    for token in result["added_tokens"]:
        token["id"] = change(token["id"])
    if result["padding"] is not None:
        result["padding"]["pad_id"] = change(result["padding"]["pad_id"])
    _map_processor(result["post_processor"], change)
    return result


_TABLES = ("vocab", "merges")


def _map_processor(processor: dict[str, Any] | None, change: Callable[[int], int]) -> None:
    """Change the ids of a post-processor, in place."""
    if processor is None or processor["type"] == "ByteLevel":
        return
    if processor["type"] == "Sequence":
        for part in processor["processors"]:
            _map_processor(part, change)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [change(index) for index in token["ids"]]
    elif processor["type"] in ("BertProcessing", "RobertaProcessing"):
        for role in ("sep", "cls"):
            token, index = processor[role]
            processor[role] = [token, change(index)]
    else:
        raise ModelError(
            f"--prune-vocabulary does not know the tokenizer's post-processor "
            f"{processor['type']}; leave it out"
        )
