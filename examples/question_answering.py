r"""Extractive question answering in the engine: sparse weights, answers by start and end logits.

    python examples/question_answering.py MODEL --output-dir OUT \
        --question "Who wrote it?" --context "The book was written by Ada in 1843."

MODEL is a directory or hub id of a question answering model whose weights another tool pruned. With
--density 0.1 a dense one is pruned here, by magnitude and without any training: its answers are
worth nothing then; `smp-pipeline train` learns masks for question answering (docs/train.md). This
conversion keeps the inputs and outputs of a graph that is there already as they are.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer
from torch.export import Dim
from torch.nn.utils import prune
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import serve
from export import convert_file
from pipeline.config import ExportConfig

LONGEST_ANSWER = 30  # tokens


def main() -> None:
    """Export, convert, answer."""
    parser = argparse.ArgumentParser(description="Answer a question with a sparse model.")
    parser.add_argument("model", help="directory or hub id")
    parser.add_argument("--density", type=float, default=1.0, help="share of weights to keep")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--question", required=True)
    parser.add_argument("--context", required=True)
    arguments = parser.parse_args()

    dense, engine = arguments.output_dir / "dense", arguments.output_dir / "engine"
    dense.mkdir(parents=True, exist_ok=True)
    export_onnx(arguments.model, arguments.density, dense)
    config = ExportConfig(from_onnx=dense / "model.onnx", format="engine", output_dir=engine)
    print(convert_file(config).engine.summary())
    print(answer(engine, arguments.question, arguments.context))


def export_onnx(name: str, density: float, directory: Path) -> None:
    """Write model.onnx, whose outputs are start_logits and end_logits, and its tokenizer."""
    model = AutoModelForQuestionAnswering.from_pretrained(name).eval()
    tokenizer = AutoTokenizer.from_pretrained(name)
    for module in model.base_model.encoder.modules():
        if density < 1 and isinstance(module, torch.nn.Linear):
            prune.l1_unstructured(module, "weight", amount=1 - density)
            prune.remove(module, "weight")
    names = tokenizer.model_input_names
    sample = tokenizer(["a?", "and b?"], ["a", "b, c"], padding=True, return_tensors="pt")
    model.config.return_dict = False
    torch.onnx.export(
        model,
        kwargs={name: sample[name] for name in names},
        f=directory / "model.onnx",
        input_names=names,
        output_names=["start_logits", "end_logits"],
        dynamic_shapes={name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in names},
        dynamo=True,
        external_data=False,
    )
    tokenizer.save_pretrained(directory)


def answer(directory: Path, question: str, context: str) -> str:
    """The span of the context with the largest sum of start and end logits; needs no torch."""
    options = onnxruntime.SessionOptions()
    serve.register(options)
    session = onnxruntime.InferenceSession(directory / "model.onnx", options)
    encoding = Tokenizer.from_file(str(directory / "tokenizer.json")).encode(question, context)
    columns = {
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
    }
    inputs = {entry.name: np.array([columns[entry.name]]) for entry in session.get_inputs()}
    start, end = (logits[0] for logits in session.run(["start_logits", "end_logits"], inputs))
    # Both ends in the context, in order, not too far apart.
    in_context = np.array([sequence == 1 for sequence in encoding.sequence_ids])
    allowed = np.triu(np.outer(in_context, in_context)) & ~np.triu(
        np.ones_like(np.outer(start, end), dtype=bool), LONGEST_ANSWER
    )
    scores = np.where(allowed, start[:, None] + end[None, :], -np.inf)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    return context[encoding.offsets[first][0] : encoding.offsets[last][1]]


if __name__ == "__main__":
    main()
