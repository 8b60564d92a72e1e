import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.config import ServeConfig
from serve.server.batching import Batcher
from serve.server.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    TimedOut,
    TooLarge,
    Unavailable,
)
from serve.server.metrics import Metrics
from serve.server.protocol import InferRequest, Tensor
from serve.server.repository import Repository
from serve.server.service import Service
from serve.server.text_model import TextModel
from serve.session import TokenRow

# The fixture `model` of conftest.py is a word counter named `words`.


@asynccontextmanager
async def serving(*models: Path, load: bool = True, **changes: Any) -> AsyncIterator[Service]:
    config = ServeConfig(models=models, threads=1, **changes)
    metrics = Metrics()
    repository = Repository(config, metrics)
    batcher = Batcher(
        max_batch_size=config.max_batch_size,
        max_delay_s=config.max_batch_delay_ms / 1000,
        max_queue=config.max_queue,
        concurrency=config.concurrency,
        metrics=metrics,
    )
    try:
        if load:
            await repository.load_all()
        yield Service(config, repository, batcher, metrics)
    finally:
        batcher.close()
        repository.close()


def ask(*texts: str, model: str = "words", version: str = "") -> InferRequest:
    tensor = Tensor("text", "BYTES", (len(texts),), list(texts))
    return InferRequest(model, version, "7", {"text": tensor}, ("logits",))


async def scores(service: Service, *texts: str) -> list[float]:
    """Logit 1 of each text: its positive words less its negative ones."""
    answer = await service.infer(ask(*texts))
    (logits,) = answer.outputs
    assert isinstance(logits.data, np.ndarray)
    return logits.data[:, 1].tolist()


class Gate(threading.Event):
    """Batches run only once it is set.

    Attributes:
        is_awaited: whether a batch has come to it.
    """

    is_awaited = False


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    real = TextModel.run
    opened = Gate()

    def run(self: TextModel, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        if threading.current_thread().name.startswith("inference"):  # not the warming up
            opened.is_awaited = True
            assert opened.wait(60)
        return real(self, rows)

    monkeypatch.setattr(TextModel, "run", run)
    return opened


def test_requests_at_once_get_their_own_answers(model: Path) -> None:
    async def main() -> None:
        async with serving(model, max_batch_size=5) as service:
            asked = [["good"] * count + ["bad film"] for count in range(1, 20)]
            answers = await asyncio.gather(*(scores(service, " ".join(words)) for words in asked))
            assert answers == [[len(words) - 2.0] for words in asked]
            assert await scores(service, "bad", "good good", "film") == [-1.0, 2.0, 0.0]

    asyncio.run(main())


def test_long_texts_are_tokenised_beside_the_loop_and_cut(model: Path) -> None:
    async def main() -> None:
        async with serving(model) as service:
            assert await scores(service, "good " * 20_000, "bad") == [30.0, -1.0]

    asyncio.run(main())


def test_contexts_of_too_many_windows_are_refused_before_all_are_made(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "answers", kind="question-answering", max_length=16)
    made = []
    monkeypatch.setattr(
        "pipeline.windows.Window.__post_init__", lambda self: made.append(1), raising=False
    )

    def ask_of(context: str) -> InferRequest:
        # Each window has room for one word of the context.
        texts = {"text": "the film was " * 4, "text_pair": context}
        inputs = {name: Tensor(name, "BYTES", (1,), [text]) for name, text in texts.items()}
        return InferRequest("answers", "", "7", inputs)

    async def main() -> None:
        async with serving(model, max_queue=20) as service:
            for words in (40, 5000):  # of few characters, and of many
                made.clear()
                with pytest.raises(TooLarge, match="more than 20 windows"):
                    await service.infer(ask_of("plot " * words))
                assert len(made) <= 2 * 21  # each is made once more with its question's number
            answer = await service.infer(ask_of("plot " * 19 + "good"))
            assert answer.outputs[0].data == ["good"]

    asyncio.run(main())


def test_refusals_pass_through(model: Path) -> None:
    async def main() -> None:
        async with serving(model, max_request_texts=2, max_text_chars=10) as service:
            for wrong, error in (
                (ask("good", model="other"), NotFound),
                (ask("good", version="3"), NotFound),
                (ask("good", "bad", "film"), TooLarge),
                (ask("good" * 3), TooLarge),
                (InferRequest("words", "", "", {}), InvalidRequest),
            ):
                with pytest.raises(error):
                    await service.infer(wrong)
            await service.unload("words")
            with pytest.raises(Unavailable):
                await service.infer(ask("good"))
            await service.load("words")
            assert await scores(service, "good") == [1.0]

    asyncio.run(main())


def test_a_request_that_takes_too_long_is_told_so(model: Path, gate: Gate) -> None:
    async def main() -> None:
        async with serving(model, request_timeout_s=0.05) as service:
            with pytest.raises(TimedOut, match=r"no answer within 0\.05 s"):
                await service.infer(ask("good"))
            with pytest.raises(TimedOut, match=r"no answer within 0\.01 s"):
                await service.infer(ask("good"), timeout_s=0.01)
            gate.set()
            answer = await service.infer(ask("good"), timeout_s=60.0)
            assert answer.id == "7"

    asyncio.run(main())


def test_a_full_queue_refuses_before_it_tokenises(
    model: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with serving(model, max_queue=1, max_batch_size=1) as service:
            tasks = [asyncio.create_task(scores(service, "good"))]
            while not gate.is_awaited:
                await asyncio.sleep(0.001)
            tasks.append(asyncio.create_task(scores(service, "good")))
            while b"smp_queue_texts 1.0" not in service.metrics.render(None)[0]:
                await asyncio.sleep(0.001)
            with monkeypatch.context() as patch:
                patch.delattr(TextModel, "tokenise")
                with pytest.raises(Overloaded):
                    await service.infer(ask("good"))
            gate.set()
            assert await asyncio.gather(*tasks) == [[1.0], [1.0]]

    asyncio.run(main())


def test_a_request_ends_on_the_model_that_it_began_with(
    model: Path, gate: Gate, make_model: Any, tmp_path: Path
) -> None:
    directory = tmp_path / "words"
    shutil.copytree(model, directory)

    async def main() -> None:
        async with serving(directory) as service:
            former = asyncio.create_task(scores(service, "good"))
            while not gate.is_awaited:
                await asyncio.sleep(0.001)
            shutil.rmtree(directory)
            make_model(directory, scale=-1.0)
            await service.load("words")
            later = asyncio.create_task(scores(service, "good"))
            while b"smp_queue_texts 1.0" not in service.metrics.render(None)[0]:
                await asyncio.sleep(0.001)
            await service.unload("words")
            gate.set()
            assert await former == [1.0]
            assert await later == [-1.0]

    asyncio.run(main())


def test_the_server_is_ready_once_loaded_and_until_it_stops(model: Path) -> None:
    async def main() -> None:
        async with serving(model, load=False) as service:
            assert service.live()
            assert not service.ready()
            assert not service.model_ready("words", "")
            assert service.index(ready_only=True) == []
            assert [entry.name for entry in service.index(ready_only=False)] == ["words"]
            await service.repository.load_all()
            assert service.ready()
            assert service.model_ready("words", "1")
            assert [entry.name for entry in service.index(ready_only=True)] == ["words"]
            service.stop()
            assert service.live()
            assert not service.ready()
            assert not service.model_ready("words", "")
            assert await scores(service, "good") == [1.0]  # what comes is still answered

    asyncio.run(main())


def test_metadata_of_server_and_model(model: Path) -> None:
    async def main() -> None:
        async with serving(model) as service:
            assert service.server_metadata().version == __version__
            assert service.model_metadata("words", "").name == "words"
            with pytest.raises(NotFound):
                service.model_metadata("other", "")

    asyncio.run(main())
