"""Tokenised examples for the trainer, and how they become batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from pipeline.data import LabelledText
from smp.losses import NO_TARGET

__all__ = ["TOKENISE_BATCH", "Examples", "collate", "length_sorted_batches", "tokenise"]

TOKENISE_BATCH = 1000
_INFERENCE_BATCH = 64


@dataclass(frozen=True)
class Examples(Dataset[dict[str, Any]]):
    """Token ids and targets of one file, unpadded.

    Attributes:
        inputs: input name -> one list of ids an example.
        targets: int64 [examples] of class indices, or float32 [examples] for regression; other
            kinds of task say of theirs in :mod:`smp.answering` and :mod:`smp.tagging`.
        truncated: how many texts were longer than the maximum and were cut.
    """

    inputs: dict[str, list[list[int]]]
    targets: Tensor
    truncated: int

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example: dict[str, Any] = {name: rows[index] for name, rows in self.inputs.items()}
        example["labels"] = self.targets[index]
        return example


def tokenise(
    data: LabelledText, targets: Sequence[int] | Sequence[float], tokenizer: Any, max_length: int
) -> Examples:
    """Tokenise one file.

    Args:
        data: texts, and second texts where there are any.
        targets: class indices or numbers, one an example.
        tokenizer: a transformers tokenizer.
        max_length: tokens after which a text is cut, special tokens included.
    """
    inputs: dict[str, list[list[int]]] = {}
    truncated = 0
    for start in range(0, len(data), TOKENISE_BATCH):
        stop = start + TOKENISE_BATCH
        pairs = None if data.pairs is None else list(data.pairs[start:stop])
        encoded = tokenizer(list(data.texts[start:stop]), pairs, truncation=False, verbose=False)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        if max(lengths) > max_length:
            truncated += sum(length > max_length for length in lengths)
            encoded = tokenizer(
                list(data.texts[start:stop]), pairs, truncation=True, max_length=max_length
            )
        for name in encoded:
            inputs.setdefault(name, []).extend(encoded[name])
    dtype = torch.int64 if isinstance(targets[0], int) else torch.float32
    return Examples(inputs, torch.tensor(targets, dtype=dtype), truncated)


def collate(examples: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Pad a batch on the right to its longest example.

    Returns:
        input name -> int64 [batch, sequence], and ``labels``, [batch, ...], padded where there is
        one a token.
    """
    longest = max(len(example["input_ids"]) for example in examples)
    labels = [example["labels"] for example in examples]
    # A label a token; a window's two, of start and end, are fewer than its tokens.
    if all(row["labels"].shape == (len(row["input_ids"]),) for row in examples):
        labels = [pad(row, (0, longest - len(row)), value=NO_TARGET) for row in labels]
    batch = {"labels": torch.stack(labels)}
    for name in examples[0]:
        if name == "labels":
            continue
        padding = pad_token_id if name == "input_ids" else 0
        rows = [row[name] + [padding] * (longest - len(row[name])) for row in examples]
        batch[name] = torch.tensor(rows, dtype=torch.int64)
    return batch


def length_sorted_batches(
    examples: Examples, pad_token_id: int, device: torch.device
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """All examples once, the shortest first, in batches for inference.

    Yields:
        int64 [batch], which examples these are; and their inputs, int64 [batch, sequence].
    """
    lengths = torch.tensor([len(ids) for ids in examples.inputs["input_ids"]])
    for indices in torch.split(lengths.argsort(stable=True), _INFERENCE_BATCH):
        batch = collate([examples[int(index)] for index in indices], pad_token_id)
        batch.pop("labels")
        yield indices, {name: ids.to(device) for name, ids in batch.items()}
