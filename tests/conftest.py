"""Tiny real artifacts: a random BERT with a WordPiece tokenizer, and labelled text files."""

import csv
import dataclasses
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from pipeline.artifacts.benchmark import Benchmark
from pipeline.artifacts.run import TaskKind
from tests.preloaded import preloaded

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Tiny models are fastest on one thread; set before torch is imported, for subprocesses too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Examples would be made of the constants in whatever modules the tests before have imported.
if hasattr(providers, "_get_local_constants"):  # hypothesis 6.131 and newer
    providers._get_local_constants = lambda: providers._local_constants

# The same examples in every run, and no limit that a busy machine could pass.
# `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

POSITIVE = ("good", "great", "fine", "lovely", "bright")
NEGATIVE = ("bad", "awful", "poor", "dull", "grim")
NEUTRAL = ("the", "film", "plot", "was", "and", "a", "very", "story", "actor", "scene")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What write_tagged_words writes.
TAGS = ("O", "B-NEG", "B-POS", "I-NEG", "I-POS")
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


def write_questions(path: Path, count: int, seed: int, *, no_answer: bool = False) -> Path:
    """Write questions in SQuAD's form, each on a context whose only positive word is the answer.

    With ``no_answer`` some contexts have none, as in version 2.0.
    """
    generator = random.Random(seed)
    paragraphs = []
    for number in range(count):
        words = generator.choices(NEUTRAL, k=generator.randrange(4, 30))
        answers = []
        if not no_answer or generator.random() < 0.6:
            place = generator.randrange(len(words) + 1)
            words.insert(place, generator.choice(POSITIVE))
            start = len(" ".join(words[:place])) + (place > 0)
            answers.append({"text": words[place], "answer_start": start})
        qa = {"id": f"q{number}", "question": "what was good?", "answers": answers}
        if no_answer:
            qa["is_impossible"] = not answers
        paragraphs.append({"context": " ".join(words), "qas": [qa]})
    version = "v2.0" if no_answer else "1.1"
    content = {"version": version, "data": [{"title": "films", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_tagged_words(path: Path, count: int, seed: int) -> Path:
    """Write sentences whose positive and negative words, one or two in a row, are entities."""
    generator = random.Random(seed)
    lines = []
    for _ in range(count):
        for _ in range(generator.randrange(1, 5)):
            lines += [f"{word}\tO" for word in generator.choices(NEUTRAL, k=2)]
            kind, words = generator.choice((("POS", POSITIVE), ("NEG", NEGATIVE)))
            chosen = generator.choices(words, k=generator.randrange(1, 3))
            positions = ("B", "I")[: len(chosen)]
            lines += [f"{w}\t{p}-{kind}" for w, p in zip(chosen, positions, strict=True)]
        lines.append("")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# Not for the whole session: while it is open, its event loop runs in the tests' thread.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium; the test is skipped where none is installed."""
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "google-chrome", "chromium-browser")]
    path = next(filter(None, found), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    arguments = [
        "--no-sandbox",  # it does not start as root otherwise
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--disable-quic",
    ]
    with sync_playwright() as playwright:
        running_browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield running_browser
        running_browser.close()


@pytest.fixture(scope="session")
def smp_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`smp-pipeline` as a process of its own that need not import torch first."""
    with preloaded(tmp_path_factory.mktemp("preloaded")) as command:
        yield command


@pytest.fixture(scope="session")
def native_library() -> Path:
    """The native library's path; the test is skipped where no compiler built it."""
    from pipeline.errors import MachineError
    from pipeline.native import library_path

    try:
        return library_path()
    except MachineError as error:
        pytest.skip(str(error))


# What was traced: a digest of the classifier and all else that a trace depends on -> ONNX.
_TRACES: dict[str, bytes] = {}


@contextmanager
def traced_once() -> Iterator[None]:
    """Trace equal classifiers once, not once a format: it is most of a tiny model's export."""
    import onnx
    import onnx_ir as ir

    from export import graph

    trace_anew = graph._trace

    def trace(classifier: Any, *arguments: Any) -> ir.Model:
        described = f"{classifier} {classifier.layout} {classifier.encoder.config} {arguments}"
        digest = hashlib.sha256(described.encode())
        for name, values in classifier.state_dict().items():
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key not in _TRACES:
            _TRACES[key] = ir.to_proto(trace_anew(classifier, *arguments)).SerializeToString()
        return ir.from_proto(onnx.load_from_string(_TRACES[key]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_trace", trace)
        yield


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random two-layer BERT (hidden size 32) and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(**TINY_BERT)
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


@pytest.fixture(scope="session")
def word_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like tiny_bert, but the state of a token says which word it is, as tasks of tokens need."""
    import torch
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("word-bert")
    torch.manual_seed(0)
    BertModel(BertConfig(**{**TINY_BERT, "initializer_range": 0.1})).save_pretrained(directory)
    save_tiny_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training file of 96 and a validation file of 48 made-up questions, all with an answer."""
    directory = tmp_path_factory.mktemp("questions")
    return (
        write_questions(directory / "train.json", 96, seed=1),
        write_questions(directory / "validation.json", 48, seed=2),
    )


@pytest.fixture(scope="session")
def tagged_words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training file of 96 and a validation file of 48 made-up sentences with entities."""
    directory = tmp_path_factory.mktemp("tagged-words")
    return (
        write_tagged_words(directory / "train.conll", 96, seed=1),
        write_tagged_words(directory / "validation.conll", 48, seed=2),
    )


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


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """:func:`write_model`."""
    return write_model


@contextmanager
def made_up_clock() -> Iterator[None]:
    """Every timed run takes about a millisecond, and nobody else uses the machine."""
    generator = random.Random(0)
    now_ns = 0

    def clock_ns() -> int:
        nonlocal now_ns
        now_ns += round(1e6 * generator.uniform(0.99, 1.01))
        return now_ns

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.latency._clock_ns", clock_ns)
        patch.setattr("serve.latency.cores_of_others", lambda before, after: 0.0)
        yield


@pytest.fixture
def quiet_machine() -> Iterator[None]:
    """For tests that must not depend on how quiet the machine is."""
    with made_up_clock():
        yield


@pytest.fixture(scope="session")
def benchmark(
    make_model: Callable[..., Path],
    reviews: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Benchmark:
    """A benchmark of two models, right and inverted, over the validation reviews.

    All is real but the clock: two steady cells, whatever else the machine does.
    """
    from pipeline.config import BenchConfig
    from serve.bench import run_benchmark

    directory = tmp_path_factory.mktemp("models")
    models = (make_model(directory / "right"), make_model(directory / "inverted", scale=-1.0))
    config = BenchConfig(
        models=models,
        validation_file=reviews[1],
        output=directory / "bench.json",
        batch_sizes=(1, 4),
        sequence_lengths=(16,),
        repetitions=5,
        threads=(1,),
        bootstrap_samples=100,
        startups=2,
    )
    with made_up_clock():
        return run_benchmark(config)


@pytest.fixture(scope="session")
def token_data(
    tagged_words: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[TaskKind, Path]:
    """48 made-up examples for each kind whose logits are of tokens; some questions of no answer."""
    path = tmp_path_factory.mktemp("token-data") / "questions.json"
    return {
        "question-answering": write_questions(path, 48, seed=3, no_answer=True),
        "token-classification": tagged_words[1],
    }


@pytest.fixture(scope="session")
def token_benchmarks(
    make_model: Callable[..., Path],
    token_data: dict[TaskKind, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[TaskKind, Benchmark]:
    """For each such kind a benchmark of two models, right and inverted.

    Load time and memory, which take a process each, are left out.
    """
    from pipeline.config import BenchConfig
    from serve.bench import run_benchmark

    found = {}
    for kind, path in token_data.items():
        directory = tmp_path_factory.mktemp("token-models")
        models = (
            make_model(directory / "right", kind=kind),
            make_model(directory / "inverted", kind=kind, scale=-1.0),
        )
        config = BenchConfig(
            models=models,
            validation_file=path,
            output=directory / "bench.json",
            batch_sizes=(2,),
            sequence_lengths=(16,),
            scenarios=("grid", "multi-stream"),
            repetitions=3,
            threads=(1,),
            bootstrap_samples=100,
        )
        with made_up_clock(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("serve.bench.measure_startups", lambda opened, **_: [None] * len(opened))
            found[kind] = run_benchmark(config)
    return found


@pytest.fixture(scope="session")
def many_reviews(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training file of 400 and a validation file of 200 made-up reviews, enough to learn from."""
    directory = tmp_path_factory.mktemp("many-reviews")
    return (
        write_reviews(directory / "train.csv", 400, seed=1),
        write_reviews(directory / "validation.csv", 200, seed=2),
    )


@pytest.fixture(scope="session")
def tiny_run(
    tiny_bert: Path, reviews: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run directory: tiny BERT, density 0.3, 20 steps. Copy it before you change it."""
    from pipeline.config import TrainConfig
    from smp.train import train

    directory = tmp_path_factory.mktemp("runs") / "tiny"
    train(
        TrainConfig(
            model=str(tiny_bert),
            output_dir=directory,
            train_file=reviews[0],
            validation_file=reviews[1],
            density=0.3,
            steps=20,
            evaluations=2,
            device="cpu",
            precision="fp32",
        )
    )
    return directory


def train_on_tokens(model: Path, files: tuple[Path, Path], directory: Path) -> Path:
    from pipeline.config import TrainConfig
    from smp.train import train

    train(
        TrainConfig(
            model=str(model),
            output_dir=directory,
            train_file=files[0],
            validation_file=files[1],
            density=0.5,
            steps=30,
            batch_size=16,
            max_length=32,
            stride=8,
            learning_rate=0.05,
            score_init_scale=0.5,
            head="least-squares",
            evaluations=2,
            device="cpu",
            precision="fp32",
        )
    )
    return directory


@pytest.fixture(scope="session")
def question_run(
    word_bert: Path, questions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run directory of question answering, density 0.5."""
    return train_on_tokens(word_bert, questions, tmp_path_factory.mktemp("runs") / "questions")


@pytest.fixture(scope="session")
def tagging_run(
    word_bert: Path, tagged_words: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run directory of token classification, density 0.5."""
    return train_on_tokens(word_bert, tagged_words, tmp_path_factory.mktemp("runs") / "tagging")
