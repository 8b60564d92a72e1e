"""Tiny real artifacts: a random BERT with a WordPiece tokenizer, and labelled text files."""

import csv
import random
from pathlib import Path

import pytest

POSITIVE = ("good", "great", "fine", "lovely", "bright")
NEGATIVE = ("bad", "awful", "poor", "dull", "grim")
NEUTRAL = ("the", "film", "plot", "was", "and", "a", "very", "story", "actor", "scene")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (*SPECIAL, *POSITIVE, *NEGATIVE, *NEUTRAL, "yes", "no")


def save_tiny_tokenizer(directory: Path) -> None:
    """Write a WordPiece tokenizer over the words above, as transformers saves one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(directory)


def write_reviews(path: Path, count: int, seed: int, labels: tuple[str, str] = ("0", "1")) -> Path:
    """Write a csv of short made-up reviews whose label follows from the words in them."""
    generator = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(count):
            label = generator.randrange(2)
            words = generator.choices(NEUTRAL, k=generator.randrange(2, 9))
            words += generator.choices((NEGATIVE, POSITIVE)[label], k=generator.randrange(1, 3))
            generator.shuffle(words)
            writer.writerow([" ".join(words), labels[label]])
    return path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random two-layer BERT (hidden size 32) and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,  # at the usual 0.02 a random encoder says nothing of its input
    )
    BertModel(config).save_pretrained(directory)
    save_tiny_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training file of 96 and a validation file of 48 made-up reviews."""
    directory = tmp_path_factory.mktemp("reviews")
    return (
        write_reviews(directory / "train.csv", 96, seed=1),
        write_reviews(directory / "validation.csv", 48, seed=2),
    )
