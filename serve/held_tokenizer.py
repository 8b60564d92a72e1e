"""A model's tokenizer, shared by sessions of equal ones, and what is said where it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from pipeline.artifacts.files import sha256_file
from pipeline.errors import ArtifactError, first_line
from serve.layout import ModelLayout
from serve.weak_cache import Held, WeakCache

__all__ = ["HeldTokenizer", "hold_tokenizer", "uncut", "usable"]


class HeldTokenizer(NamedTuple):
    """A tokenizer that cuts texts and does not pad them.

    Attributes:
        tokenizer: the tokenizer.
        pad_token_id: what fills up a row of ``input_ids``.
    """

    tokenizer: Tokenizer
    pad_token_id: int


_tokenizers: WeakCache[HeldTokenizer] = WeakCache()


def hold_tokenizer(layout: ModelLayout, *, shared: bool) -> Held[HeldTokenizer]:
    """The tokenizer of a model.

    Args:
        layout: the model's files.
        shared: take that of another session of the process, if it is the same.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    if not shared:
        return Held(_load_tokenizer(layout))
    key = (sha256_file(layout.tokenizer), layout.max_length, layout.pad_token)
    return _tokenizers.get(key, lambda: _load_tokenizer(layout))


def uncut(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither cuts nor pads."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """For the use of a tokenizer on texts.

    Args:
        path: its tokenizer.json.

    Raises:
        ArtifactError: that is damaged so that it fails on them.
    """
    try:
        yield
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise ArtifactError(
            f"{path} is corrupt: tokenizers cannot use it on a text ({first_line(error)}); "
            "copy the directory again"
        ) from error


def _load_tokenizer(layout: ModelLayout) -> HeldTokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(layout.tokenizer))
        pad_token_id = layout.pad_token_id(tokenizer)
        tokenizer.no_padding()
        tokenizer.enable_truncation(layout.max_length)
        tokenizer.encode("")
    except BaseException as error:  # tokenizers raises plain Exception, and panics
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        again = "or export again" if layout.manifest else "or save the tokenizer again"
        raise ArtifactError(
            f"{layout.tokenizer} is corrupt or of a newer tokenizers ({first_line(error)}); "
            f"copy the directory again {again}"
        ) from error
    return HeldTokenizer(tokenizer, pad_token_id)


def _is_panic(error: BaseException) -> bool:
    """Whether a library in Rust gave up; its exception is no Exception, and in no module."""
    return type(error).__name__ == "PanicException"
