"""Fixtures: tiny real artifacts, of a random BERT and made-up data."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from pipeline.artifacts.benchmark import Benchmark
from pipeline.artifacts.run import TaskKind
from tests.made_up_data import write_questions, write_reviews, write_tagged_words
from tests.made_up_models import TINY_BERT, save_tiny_tokenizer, write_model
from tests.preloaded import preloaded
from tests.traces import traced_once

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of traced models that all workers of this session share."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    directory /= "traces"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="module", name="traced_once")
def traced_once_in_a_module(traces: Path) -> Iterator[None]:
    """Not for tests of tracing itself (tests/export/test_graph.py)."""
    with traced_once(traces):
        yield


@pytest.fixture(scope="session")
def smp_pipeline(tmp_path_factory: pytest.TempPathFactory, traces: Path) -> Iterator[Path]:
    """`smp-pipeline` as a process of its own that need not import torch or trace a model anew."""
    with preloaded(tmp_path_factory.mktemp("preloaded"), traces) as command:
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
