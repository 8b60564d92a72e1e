"""The texts that an exported graph is compared on with what it was made from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline.artifacts.run import TaskLayout
from pipeline.config import ExportConfig
from pipeline.tagged_words import TaggedWords
from pipeline.task_files import read_task_file
from pipeline.word_tokens import join_words

__all__ = ["Row", "comparison_texts", "text_batches"]

# A text, or a pair of texts.
Row: TypeAlias = str | tuple[str, str]

_BATCH_SIZE = 16
_ENCODING_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}


def comparison_texts(
    config: ExportConfig, task: TaskLayout, recorded: str | None
) -> list[Row] | None:
    """The first texts of --validation-file, or of the run's validation file; None without either.

    Args:
        config: with the flag, and how many texts are wanted.
        task: the columns.
        recorded: where the run's validation data came from.

    Raises:
        DataError: the file cannot be read.
    """
    path, flag = config.validation_file, "--validation-file"
    if path is None:
        path, flag = Path(recorded or ""), "the run's validation data"
        if not path.is_file():
            return None
    texts = read_task_file(
        path,
        flag=flag,
        kind=task.kind,
        text_column=task.text_column,
        text_pair_column=task.text_pair_column,
        label_column=task.label_column,
    ).head(config.verification_samples)
    if isinstance(texts, TaggedWords):
        return [join_words(words)[0] for words in texts.words]
    if texts.pairs is None:
        return list(texts.texts)
    return list(zip(texts.texts, texts.pairs, strict=True))


def text_batches(
    tokenizer_path: Path,
    texts: Sequence[Row],
    *,
    inputs: Sequence[str],
    max_length: int,
    pad_token_id: int,
) -> list[dict[str, NDArray[np.int64]]]:
    """Texts in padded batches, then one text alone, then one input of the full length.

    They are tokenised as the benchmark and the service do.

    Args:
        tokenizer_path: tokenizer.json.
        texts: the texts.
        inputs: the graph's inputs.
        max_length: tokens after which a text is cut.
        pad_token_id: the id that pads ``input_ids``.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    encodings = tokenizer.encode_batch(list(texts))
    batches = [
        _collate(encodings[start : start + _BATCH_SIZE], inputs, pad_token_id)
        for start in range(0, len(encodings), _BATCH_SIZE)
    ]
    alone = _collate(encodings[:1], inputs, pad_token_id)
    longest = {name: np.resize(ids, (1, max_length)) for name, ids in alone.items()}
    return [*batches, alone, longest]


def _collate(
    encodings: Sequence[Encoding], inputs: Sequence[str], pad_token_id: int
) -> dict[str, NDArray[np.int64]]:
    """Pad encodings to the longest of them: int64 [batch, sequence] an input."""
    shape = (len(encodings), max(len(encoding.ids) for encoding in encodings))
    batch = {}
    for name in inputs:
        batch[name] = np.full(shape, pad_token_id if name == "input_ids" else 0, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            batch[name][row, : len(encoding.ids)] = getattr(encoding, _ENCODING_FIELDS[name])
    return batch
