"""Small tokenizers of every model, trained on made-up words, and random classifiers."""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    DebertaV2Tokenizer,
    MPNetConfig,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)

from pipeline.artifacts.classifier import Head, TextClassifier
from pipeline.artifacts.run import HeadLayout

ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
SYLLABLES = ("ka", "lo", "mi", "né", "sta", "ru", "vel", "o", "th", "ing", "üx", "b")
CHARACTERS = sorted(set("".join(SYLLABLES)))
SYLLABLE = re.compile("|".join([*SYLLABLES, "."]))
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of made-up words with a comma here and there."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 4))) for _ in range(120)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    lines = []
    for _ in range(count):
        line = generator.choices(words, weights, k=generator.randint(2, 9))
        line.insert(generator.randrange(len(line)), generator.choice([",", "and", "!"]))
        lines.append(" ".join(line))
    return lines


TRAINING = sentences(400, seed=0)
CORPUS = TRAINING[:25]
LETTERS = sorted(set("".join(TRAINING)) - {" "})


def _wordpiece(**options: Any) -> BertTokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", *(f"[unused{index}]" for index in range(3)), "[UNK]", "[CLS]", "[SEP]"]
    # Left to itself, the trainer numbers letters inside words by chance, and breaks ties by number.
    letters = [form for letter in LETTERS for form in (letter, f"##{letter}")]
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=[*special, "[MASK]", *letters], show_progress=False
    )
    backend.train_from_iterator(TRAINING, trainer)
    return BertTokenizer(vocab=backend.get_vocab(), strip_accents=False, **options)


def _mpnet() -> MPNetTokenizer:
    roles = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    tokens = [roles.get(token, token) for token in _by_id(_wordpiece().get_vocab())]
    tokens.insert(1, tokens.pop(0))  # MPNet's padding token is number 1, whatever is said
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return MPNetTokenizer(vocab=vocabulary, strip_accents=False)


def _by_id(vocabulary: dict[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _byte_bpe() -> RobertaTokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=[*ROBERTA_TOKENS, "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TRAINING, trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    return RobertaTokenizer(vocab=backend.get_vocab(), merges=[tuple(pair) for pair in merges])


def _character_bpe() -> PreTrainedTokenizerFast:
    """With marks for the inside and the end of words, and unknown characters."""
    marks = {"continuing_subword_prefix": "@@", "end_of_word_suffix": "</w>"}
    backend = Tokenizer(models.BPE(unk_token="<unk>", **marks))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    # As above, letters with marks have their numbers before training.
    forms = ("{}", "{}</w>", "@@{}", "@@{}</w>")
    letters = [form.format(letter) for letter in LETTERS for form in forms]
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=[*ROBERTA_TOKENS, "<mask>", *letters],
        show_progress=False,
        **marks,
    )
    backend.train_from_iterator(TRAINING, trainer)
    merges = [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    backend = Tokenizer(models.BPE(backend.get_vocab(), merges, unk_token="<unk>", **marks))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(
        ("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>"))
    )
    return _generic(backend)


def _pieces(special: list[str]) -> list[tuple[str, float]]:
    """Characters and frequent parts of words, with the logarithms of their shares.

    UnigramTrainer is not used: its pieces and scores differ from process to process.
    """
    characters = Counter(WORD_START + "".join(LETTERS))
    parts: Counter[str] = Counter()
    for word in " ".join(TRAINING).split():
        syllables = [WORD_START, *SYLLABLE.findall(word)]
        characters.update("".join(syllables))
        for first, last in combinations(range(len(syllables) + 1), 2):
            parts["".join(syllables[first:last])] += 1
    counts = {**dict(parts.most_common(90)), **characters}
    total = sum(counts.values())
    scores = sorted((-math.log(count / total), piece) for piece, count in counts.items())
    return [*((token, 0.0) for token in special), *((piece, -score) for score, piece in scores)]


def _unigram() -> XLMRobertaTokenizer:
    return XLMRobertaTokenizer(vocab=[*_pieces(list(ROBERTA_TOKENS)), ("<mask>", 0.0)])


def _unigram_and_added() -> DebertaV2Tokenizer:
    """The mask token stands outside the model, as in DeBERTa-v3."""
    return DebertaV2Tokenizer(vocab=_pieces(["[PAD]", "[CLS]", "[SEP]", "[UNK]"]))


def _word_level() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        special_tokens=[*ROBERTA_TOKENS, "<mask>"], show_progress=False
    )
    backend.train_from_iterator(TRAINING, trainer)
    backend.post_processor = processors.Sequence(
        [
            processors.RobertaProcessing(
                ("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>"))
            )
        ]
    )
    return _generic(backend)


def _generic(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        sep_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


KINDS: dict[str, tuple[Callable[[], Any], Any]] = {
    "wordpiece": (_wordpiece, BertConfig),
    "wordpiece-mpnet": (_mpnet, MPNetConfig),
    "byte-bpe": (_byte_bpe, RobertaConfig),
    "character-bpe": (_character_bpe, RobertaConfig),
    "unigram": (_unigram, XLMRobertaConfig),
    "unigram-and-added": (_unigram_and_added, DebertaV2Config),
    "word-level": (_word_level, RobertaConfig),
}


def random_classifier(tokenizer: Any, config_class: Any, pooling: str = "mean") -> TextClassifier:
    """A tiny random encoder of that class, with some embeddings that no token has."""
    torch.manual_seed(0)
    vocabulary = tokenizer.get_vocab()
    config = config_class(
        vocab_size=max(vocabulary.values()) + 7,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id,
        type_vocab_size=2,
    )
    mask = tokenizer.mask_token_id if pooling == "mask" else None
    layout = HeadLayout("linear", pooling, 16, 2, mask_token_id=mask)
    head = Head(layout)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    encoder = AutoModel.from_config(config)
    return TextClassifier(encoder, head, layout).eval()
