"""Small tokenizers of every model, trained on made-up words, and random classifiers."""

import json
import random
from collections.abc import Callable
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
from pipeline.data import LabelledText

ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
SYLLABLES = ("ka", "lo", "mi", "né", "sta", "ru", "vel", "o", "th", "ing", "üx", "b")
CHARACTERS = sorted(set("".join(SYLLABLES)))


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
CORPUS = sentences(400, seed=0)[:25]


def _wordpiece(**options: Any) -> BertTokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", *(f"[unused{index}]" for index in range(3)), "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=[*special, "[MASK]"], show_progress=False
    )
    backend.train_from_iterator(TRAINING, trainer)
    vocabulary = backend.get_vocab()
    for character in CHARACTERS:  # the trainer has those inside words only where they were seen
        for token in (character, f"##{character}"):
            vocabulary.setdefault(token, len(vocabulary))
    return BertTokenizer(vocab=vocabulary, strip_accents=False, **options)


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
    backend = Tokenizer(
        models.BPE(unk_token="<unk>", continuing_subword_prefix="@@", end_of_word_suffix="</w>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=[*ROBERTA_TOKENS, "<mask>"],
        continuing_subword_prefix="@@",
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(TRAINING, trainer)
    backend.post_processor = processors.BertProcessing(
        ("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>"))
    )
    return _generic(backend)


def _pieces(special: list[str]) -> list[tuple[str, float]]:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=260,
        special_tokens=special,
        unk_token=special[3],
        initial_alphabet=CHARACTERS,
        show_progress=False,
    )
    backend.train_from_iterator(TRAINING, trainer)
    return [tuple(entry) for entry in json.loads(backend.to_str())["model"]["vocab"]]


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


def labelled(texts: list[str], pairs: list[str] | None = None) -> LabelledText:
    """Validation texts; the labels mean nothing."""
    return LabelledText("made up", texts, pairs, [0] * len(texts), "text", None, "label")
