"""Which tokens a tokenizer model needs, so that texts keep theirs and unknown words have some."""

import re
from collections.abc import Mapping, Set
from typing import Any

from pipeline.errors import ModelError

__all__ = ["merged", "needed_tokens"]

_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


def needed_tokens(model: Mapping[str, Any], used: Set[str]) -> set[str]:
    """The used tokens and those that the model cannot do without.

    With any set of the model's tokens that holds these, and BPE merges among them, every text made
    of the used tokens becomes the same tokens again:

    - WordPiece takes the longest token that fits, and that is still there.
    - BPE does the first merge of its list that fits; those that a used token is made by stay.
    - Unigram takes the most probable pieces; they stay, with their scores, and so does the least
      probable piece of all, which sets the score of what is unknown.

    Single characters (and the tokens of bytes) stay as well: any word of known characters has them
    to fall back on. WordLevel has no such tokens.

    Args:
        model: the section ``model`` of a tokenizer.json.
        used: tokens of the model.

    Raises:
        ModelError: the model is of another type.
    """
    kind = model["type"]
    if kind == "WordLevel":
        return {*used, model["unk_token"]}
    if kind == "WordPiece":
        return {*used, model["unk_token"], *_characters(model)}
    if kind == "BPE":
        unknown = {model["unk_token"]} if model.get("unk_token") else set()
        return _with_parts(model, {*used, *unknown, *_characters(model)})
    if kind == "Unigram":
        return {*used, *_characters(model), *_lowest(model)}
    raise ModelError(
        f"--prune-vocabulary knows WordPiece, BPE, Unigram and WordLevel tokenizers, this one is "
        f"{kind}; leave it out"
    )


def merged(model: Mapping[str, Any], left: str, right: str) -> str:
    """The token that a BPE merge makes of two."""
    return left + right[len(model.get("continuing_subword_prefix") or "") :]


def _characters(model: Mapping[str, Any]) -> set[str]:
    """Tokens of one character, with or without the marks of a word's inside or end; bytes."""
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    tokens = model["vocab"]
    if model["type"] == "Unigram":
        tokens = [piece for piece, _ in tokens]
    return {
        token
        for token in tokens
        if len(token.removeprefix(prefix).removesuffix(suffix)) <= 1 or _BYTE_TOKEN.fullmatch(token)
    }


def _with_parts(model: Mapping[str, Any], tokens: Set[str]) -> set[str]:
    """The tokens, and all that they are merged from."""
    pairs: dict[str, list[str]] = {}
    for left, right in model["merges"]:
        pairs.setdefault(merged(model, left, right), []).extend((left, right))
    found: set[str] = set()
    waiting = list(tokens)
    while waiting:
        token = waiting.pop()
        if token not in found:
            found.add(token)
            waiting.extend(pairs.get(token, ()))
    return found


def _lowest(model: Mapping[str, Any]) -> set[str]:
    pieces = model["vocab"]
    return {min(pieces, key=lambda entry: entry[1])[0]} if pieces else set()
