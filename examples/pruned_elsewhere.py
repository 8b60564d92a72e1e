"""A classifier that another tool pruned, made fast: zeros in a checkpoint become speed.

    python examples/pruned_elsewhere.py MODEL --output-dir OUT

MODEL is a directory or hub id that AutoModelForSequenceClassification loads. Here the other tool is
torch.nn.utils.prune, by magnitude and without any training, which costs accuracy; for a checkpoint
that is pruned already say --density 1. OUT gets dense/, which any ONNX tool reads, and engine/, the
same model with its zeros skipped. What that brings:

    smp-pipeline bench OUT/dense OUT/engine
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim
from torch.nn.utils import prune
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export import convert_file
from pipeline.config import ExportConfig


def main() -> None:
    """Prune, export with torch.onnx, convert."""
    parser = argparse.ArgumentParser(description="Make a model that was pruned elsewhere fast.")
    parser.add_argument("model", help="directory or hub id")
    parser.add_argument("--density", type=float, default=0.1, help="share of weights to keep")
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()

    model = AutoModelForSequenceClassification.from_pretrained(arguments.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    if arguments.density < 1:
        prune_by_magnitude(model.base_model.encoder, arguments.density)

    dense = arguments.output_dir / "dense"
    dense.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(dense)  # the label names; the tokenizer says how texts go in
    tokenizer.save_pretrained(dense)
    export_onnx(model, tokenizer, dense / "model.onnx")

    config = ExportConfig(
        from_onnx=dense / "model.onnx", format="engine", output_dir=arguments.output_dir / "engine"
    )
    print(convert_file(config).engine.summary())


def prune_by_magnitude(encoder: torch.nn.Module, density: float) -> None:
    """Set the smallest weights of every linear layer to zero, in place."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.Linear):
            prune.l1_unstructured(module, "weight", amount=1 - density)
            prune.remove(module, "weight")


def export_onnx(model: torch.nn.Module, tokenizer: Any, path: Path) -> None:
    """Write the ONNX graph, for any batch of texts of any length."""
    names = tokenizer.model_input_names
    sample = tokenizer(["a text", "another, longer text"], padding=True, return_tensors="pt")
    model.config.return_dict = False
    torch.onnx.export(
        model,
        kwargs={name: sample[name] for name in names},
        f=path,
        input_names=names,
        output_names=["logits"],
        dynamic_shapes={name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in names},
        dynamo=True,
        external_data=False,
    )


if __name__ == "__main__":
    main()
