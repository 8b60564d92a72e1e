"""The code that a model card shows: how to run the model."""

import json
from collections.abc import Mapping

from pipeline.artifacts.exported import ExportManifest, graph_outputs
from pipeline.artifacts.run import TaskKind

__all__ = ["hub_tag", "usage"]

_USAGE = """```python
import numpy as np
import onnxruntime as ort
{imports}from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({truncation})
tokenizer.enable_padding(pad_id={pad_token_id})
{session}

encodings = tokenizer.encode_batch([{example}])
fields = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
inputs = {{
    entry.name: np.array([getattr(encoding, fields[entry.name]) for encoding in encodings])
    for entry in session.get_inputs()
}}
{names} = session.run({outputs}, inputs)
{printed}
```"""

# What it prints for models of tokens; others print their logits.
_ANSWER = """for encoding, starts, ends in zip(encodings, start_logits, end_logits):
    print(encoding.tokens[starts.argmax() : ends.argmax() + 1])"""
_LABELS = """labels = {labels}
for encoding, rows in zip(encodings, logits):
    print([(token, labels[row.argmax()]) for token, row in zip(encoding.tokens, rows)])"""

_ENGINE_NEEDS = """The operators are in the native library of smp-pipeline
(`pip install smp-pipeline[cpu]`):

"""

_ENGINE_SESSION = """options = ort.SessionOptions()
serve.register(options)
session = ort.InferenceSession("model.onnx", options)"""

_OPTIMUM = """

With optimum (`pip install "optimum-onnx[onnxruntime]"`):

```python
from optimum.onnxruntime import {model_class}
from transformers import AutoTokenizer, pipeline

model = {model_class}.from_pretrained(".")
predict = pipeline("{tag}", model=model, tokenizer=AutoTokenizer.from_pretrained("."))
```"""

# The hub's tag and optimum's class of each kind of task.
_TAGS: Mapping[TaskKind, tuple[str, str]] = {
    "classification": ("text-classification", "ORTModelForSequenceClassification"),
    "regression": ("text-classification", "ORTModelForSequenceClassification"),
    "question-answering": ("question-answering", "ORTModelForQuestionAnswering"),
    "token-classification": ("token-classification", "ORTModelForTokenClassification"),
}


def hub_tag(kind: TaskKind) -> str:
    """The tag of the Hugging Face hub for a kind of task."""
    return _TAGS[kind][0]


def usage(manifest: ExportManifest) -> str:
    """Code for ONNX Runtime, and for optimum where it opens the model, in Markdown."""
    task = manifest.task
    outputs = list(graph_outputs(task.kind))
    parts = {
        "example": '"A text."',
        "truncation": str(task.max_length),
        "names": "(logits,)",
        "printed": "print(logits)",
    }
    if task.text_pair_column is not None:
        parts["example"] = '("A text.", "Its partner.")'
    if task.answers is not None:
        parts["example"] = '("Who wrote it?", "Ada wrote it in 1843.")'
        # Of a long context the first window; a stride that leaves no room for it is an error there.
        parts["truncation"] += ', strategy="only_second"'
        parts["names"], parts["printed"] = ", ".join(outputs), _ANSWER
    elif task.kind == "token-classification":
        # One text, as in training: as a list, words would lose the space that some tokenizers need.
        parts["example"] = '"Some words , parted by spaces ."'
        parts["printed"] = _LABELS.format(labels=list(task.labels))
    engine = manifest.format == "engine"
    code = _USAGE.format(
        pad_token_id=manifest.pad_token_id,
        imports="import serve\n" if engine else "",
        session=_ENGINE_SESSION if engine else 'session = ort.InferenceSession("model.onnx")',
        outputs=json.dumps(outputs),
        **parts,
    )
    if engine:
        return _ENGINE_NEEDS + code
    tag, model_class = _TAGS[task.kind]
    return code + _OPTIMUM.format(tag=tag, model_class=model_class)
