"""A tiny tokenizer, and model directories around graphs that know the made-up data's words."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from pipeline.artifacts.run import TaskKind
from tests.made_up_data import NEGATIVE, NEUTRAL, POSITIVE, TAGS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (*SPECIAL, *POSITIVE, *NEGATIVE, *NEUTRAL, "yes", "no")
# A BertConfig's settings.
TINY_BERT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,  # at the usual 0.02 a random encoder says nothing of its input
}


def save_tiny_tokenizer(directory: Path) -> None:
    """Write a WordPiece tokenizer over the words above, as transformers would save it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "backend": "tokenizers",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": 64,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "tokenizer_class": "TokenizersBackend",
        "unk_token": "[UNK]",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def write_word_counter(path: Path, outputs: int, *, scale: float, positions: int) -> None:
    """Write a graph whose logits count the positive and negative words of a text.

    Logit 1 is ``scale`` x (positive - negative words) and logit 0 its negation; a single output
    is the former. Second texts (token type 1) count twice. More than ``positions`` tokens fail.
    """
    import numpy as np
    import onnx

    sign = {**dict.fromkeys(POSITIVE, scale), **dict.fromkeys(NEGATIVE, -scale)}
    weights = np.array([sign.get(word, 0.0) for word in VOCABULARY], dtype=np.float32)
    words = np.stack([-weights, weights], axis=1) if outputs == 2 else weights[:, None]
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        words (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask,
               int64[batch, sequence] token_type_ids) => (float[batch, {outputs}] logits)
        <int64 zero = {{0}}, int64 one = {{1}}, int64[1] axis = {{1}}, int64[1] last = {{2}}>
        {{
            shape = Shape(input_ids)
            length = Gather(shape, one)
            steps = Range(zero, length, one)
            position = Gather(positions, steps)
            embedded = Gather(words, input_ids)
            placed = Add(embedded, position)
            typed = Add(token_type_ids, one)
            counted = Mul(typed, attention_mask)
            shares = Cast<to = 1>(counted)
            column = Unsqueeze(shares, last)
            weighted = Mul(placed, column)
            logits = ReduceSum<keepdims = 0>(weighted, axis)
        }}
        """
    )
    tables = {"words": words, "positions": np.zeros((positions, outputs), dtype=np.float32)}
    for name, values in tables.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_word_tagger(path: Path, kind: TaskKind, *, scale: float) -> None:
    """Write a graph that is right on all that write_questions and write_tagged_words write.

    For question answering a positive word is where the answer starts and ends, and the first token
    has half its score, which is that of no answer. A negative ``scale`` turns all of it round.
    """
    import numpy as np
    import onnx

    words = np.array(
        [[word in group for group in (NEGATIVE, POSITIVE)] for word in VOCABULARY], np.float32
    )
    if kind == "token-classification":
        # B- of the word's kind, or I- where the word before it is of the same kind.
        outputs = "float[batch, sequence, 5] logits"
        nodes = """found = Gather(words, input_ids)
            behind = Pad(found, one_before)
            before = Slice(behind, first, last, axis)
            both = Mul(found, before)
            inside = Add(both, both)
            small = ReduceMax<keepdims = 1>(found, label)
            none = Sub(half, small)
            positive = Concat<axis = 2>(none, found, inside)
            logits = Mul(positive, scale)"""
    else:
        words = words[:, 1]
        words[VOCABULARY.index("[CLS]")] = 0.5
        outputs = "float[batch, sequence] start_logits, float[batch, sequence] end_logits"
        nodes = """found = Gather(words, input_ids)
            start_logits = Mul(found, scale)
            end_logits = Identity(start_logits)"""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        words (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask,
               int64[batch, sequence] token_type_ids) => ({outputs})
        <int64[6] one_before = {{0, 1, 0, 0, 0, 0}}, int64[1] first = {{0}},
         int64[1] last = {{-1}}, int64[1] axis = {{1}}, int64[1] label = {{2}},
         float half = {{0.5}}>
        {{
            {nodes}
        }}
        """
    )
    constants = {"words": words, "scale": np.array(scale, np.float32)}
    for name, values in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_model(
    directory: Path,
    *,
    kind: TaskKind | None = None,
    labels: tuple[str, ...] = ("0", "1"),
    metric: str = "accuracy",
    max_length: int = 32,
    text_pair_column: str | None = None,
    scale: float = 1.0,
    positions: int = 64,
    **changes: Any,
) -> Path:
    """Write a model directory around :func:`write_word_counter`'s graph.

    Or around :func:`write_word_tagger`'s, for those two kinds.
    """
    from pipeline.artifacts.exported import ExportManifest, Verification, write_export_manifest
    from pipeline.artifacts.files import sha256_file
    from pipeline.artifacts.run import AnswerLayout, BaseModel, TaskLayout

    directory.mkdir(parents=True)
    save_tiny_tokenizer(directory)
    graph = directory / "model.onnx"
    kind = kind or ("classification" if labels else "regression")
    task = TaskLayout(kind, labels, "text", text_pair_column, "label", max_length, metric)
    if kind == "question-answering":
        layout = AnswerLayout(4, 3, 5, no_answer=True)
        columns = ("question", "context", "answers")
        task = TaskLayout(kind, (), *columns, max_length, "squad_f1", layout)
    elif kind == "token-classification":
        columns = ("tokens", None, "ner_tags")
        task = TaskLayout(kind, TAGS, *columns, max_length, "entity_f1")
    if kind in ("question-answering", "token-classification"):
        write_word_tagger(graph, kind, scale=scale)
    else:
        write_word_counter(graph, max(1, len(labels)), scale=scale, positions=positions)
    manifest = ExportManifest(
        smp_pipeline_version="0",
        format="dense",
        method="smp-s",
        density=0.5,
        opset=20,
        base_model=BaseModel("tiny", None, "bert", "0" * 64),
        task=task,
        inputs=("input_ids", "attention_mask", "token_type_ids"),
        pad_token_id=VOCABULARY.index("[PAD]"),
        model_sha256=sha256_file(graph),
        verification=Verification(1, 0.0, 1e-4, 1.0),
        encodings={},
        run={},
        versions={},
    )
    write_export_manifest(directory, dataclasses.replace(manifest, **changes))
    return directory
