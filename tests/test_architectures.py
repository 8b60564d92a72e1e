"""Each architecture from training to the benchmark, on tiny random models, all in one process.

The benchmark's metric on the exported graph must be the one that training measured in PyTorch.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForMaskedLM

from export import export_delta, export_run
from pipeline.artifacts.benchmark import Benchmark, Quality
from pipeline.artifacts.run import RunManifest, TaskKind, read_run
from pipeline.config import BenchConfig, ExportConfig, TrainConfig
from serve.bench import run_benchmark
from smp.architectures import ARCHITECTURES
from smp.train import train
from tests.conftest import made_up_clock
from tests.export.vocabulary.made_up import KINDS, TRAINING

# Model type -> the tokenizer that its models have, by the names of tests.export.vocabulary.made_up.
TOKENIZERS = {
    "bert": "wordpiece",
    "camembert": "unigram",
    "deberta-v2": "unigram-and-added",
    "distilbert": "wordpiece",
    "electra": "wordpiece",
    "mpnet": "wordpiece-mpnet",
    "roberta": "byte-bpe",
    "xlm-roberta": "unigram",
}
# One layer, since tracing takes most of the time; tests/export/test_graph.py has two.
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "initializer_range": 0.5,
}
DISTILBERT_SIZES = {
    "dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 66,
    "initializer_range": 0.5,
}
FORMATS: dict[str, dict[str, Any]] = {
    "dense": {},
    "sparse": {},
    "packed": {"values": "fp32"},
    "engine": {"compute": "fp32", "values": "fp32"},
}


@pytest.fixture(scope="module", autouse=True)
def quickly(traced_once: None) -> Iterator[None]:
    """Start no process to measure load time and operators."""
    with made_up_clock(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.bench.measure_startups", lambda opened, **_: [None] * len(opened))
        patch.setattr("serve.bench.measure_operators", lambda session, **_: None)
        yield


def save_model(directory: Path, model_type: str) -> Path:
    """A random model with a masked-language-model head, and its tokenizer."""
    tokenizer = KINDS[TOKENIZERS[model_type]][0]()
    sizes = DISTILBERT_SIZES if model_type == "distilbert" else SIZES
    config = AutoConfig.for_model(
        model_type,
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write_texts(path: Path, count: int) -> Path:
    """Made-up sentences; the label says whether there is a comma."""
    rows = [{"text": text, "label": str("," in text)} for text in TRAINING[-count:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_questions(path: Path, count: int) -> Path:
    """The answer is the last word; every fourth question has none."""
    rows = []
    for number, text in enumerate(TRAINING[-count:]):
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if number % 4:
            start = text.rindex(" ") + 1
            answers = {"text": [text[start:]], "answer_start": [start]}
        rows.append({"question": "ka lo", "context": text, "answers": answers})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_words(path: Path, count: int) -> Path:
    """Words that begin with k are entities."""
    sentences = [
        "".join(f"{word}\t{'B-K' if word[0] == 'k' else 'O'}\n" for word in text.split())
        for text in TRAINING[-count:]
    ]
    path.write_text("\n".join(sentences), encoding="utf-8")
    return path


WRITERS = {
    "classification": (write_texts, "jsonl"),
    "question-answering": (write_questions, "jsonl"),
    "token-classification": (write_words, "conll"),
}


def train_briefly(directory: Path, model_type: str, kind: TaskKind, **options: Any) -> RunManifest:
    """Three steps to density 0.3, in ``directory / "run"``."""
    model = save_model(directory / "model", model_type)
    write, suffix = WRITERS[kind]
    train(
        TrainConfig(
            model=str(model),
            train_file=write(directory / f"train.{suffix}", 48),
            validation_file=write(directory / f"validation.{suffix}", 24),
            output_dir=directory / "run",
            density=0.3,
            steps=3,
            evaluations=1,
            max_length=32,
            device="cpu",
            precision="fp32",
            **options,
        )
    )
    return read_run(directory / "run")


def bench(directory: Path, formats: dict[str, dict[str, Any]]) -> Benchmark:
    for name, options in formats.items():
        export_run(
            ExportConfig(
                run=directory / "run",
                output_dir=directory / name,
                format=name,
                embeddings="fp32",
                **options,
            )
        )
    return run_benchmark(
        BenchConfig(
            models=tuple(directory / name for name in formats),
            validation_file=next(directory.glob("validation.*")),
            output=directory / "bench.json",
            batch_sizes=(1,),
            sequence_lengths=(8,),
            repetitions=3,
            threads=(1,),
            bootstrap_samples=100,
        )
    )


def qualities(benchmark: Benchmark) -> list[Quality]:
    found = [model.quality for model in benchmark.models]
    return [quality for quality in found if quality is not None]


def test_every_architecture_is_here() -> None:
    assert set(TOKENIZERS) == set(ARCHITECTURES)


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_every_format_says_what_training_measured(model_type: str, tmp_path: Path) -> None:
    run = train_briefly(tmp_path, model_type, "classification")
    assert run.base_model.model_type == model_type
    benchmark = bench(tmp_path, FORMATS)
    dense, *others = qualities(benchmark)
    assert dense.metrics["accuracy"].value == pytest.approx(run.metrics["accuracy"])
    assert len(others) == 3
    for quality in others:
        assert quality.agreement is not None
        assert quality.agreement.largest_logit_difference < 1e-3
        assert quality.predictions.labels == dense.predictions.labels
    delta = {"run": tmp_path / "run", "output_dir": tmp_path / "delta"}
    export_delta(ExportConfig(format="delta", **delta))
    again = {"from_delta": tmp_path / "delta", "output_dir": tmp_path / "again"}
    export_run(ExportConfig(format="dense", embeddings="fp32", **again))
    files = [(tmp_path / name / "model.onnx").read_bytes() for name in ("again", "dense")]
    assert files[0] == files[1]


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("roberta", "question-answering"),
        ("deberta-v2", "token-classification"),
    ],
)
def test_answers_and_entities_are_those_of_training(
    model_type: str, kind: TaskKind, tmp_path: Path
) -> None:
    run = train_briefly(tmp_path, model_type, kind, head="least-squares")
    dense, engine = qualities(
        bench(tmp_path, {name: FORMATS[name] for name in ("dense", "engine")})
    )
    for name, estimate in dense.metrics.items():
        assert estimate.value == pytest.approx(run.metrics[name]), name
    assert engine.predictions == dense.predictions


def test_the_label_words_of_roberta_begin_with_a_space(tmp_path: Path) -> None:
    vocabulary = KINDS["byte-bpe"][0]().get_vocab()
    # Byte-level BPE makes the space before a word part of it, and writes it so.
    spaced = [
        token for token in sorted(vocabulary) if token.startswith("Ġ") and token[2:].isascii()
    ]
    words = tuple(token.removeprefix("Ġ") for token in spaced if token[2:].isalpha())[:2]
    run = train_briefly(
        tmp_path, "roberta", "classification", head="label-words", label_words=words
    )
    assert (run.head.kind, run.head.label_words) == ("label-words", words)
    model = AutoModelForMaskedLM.from_pretrained(str(tmp_path / "model"))
    rows = model.lm_head.decoder.weight.detach()[[vocabulary[f"Ġ{word}"] for word in words]]
    head = load_file(str(tmp_path / "run" / "head.safetensors"))
    assert torch.equal(head["output.weight"], rows)
    (dense,) = qualities(bench(tmp_path, {"dense": {}}))
    assert dense.metrics["accuracy"].value == pytest.approx(run.metrics["accuracy"])
