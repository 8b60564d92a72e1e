import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serve.server.batching import Batcher
from serve.server.errors import InferenceFailed, Overloaded, TooLarge, Unavailable
from serve.server.metrics import Metrics
from serve.session import TokenRow
from tests.serve.server.fake_model import BAD, FakeModel, as_model, batcher, row, until

LONG_S = 3600.0


@pytest.fixture
def model() -> Iterator[FakeModel]:
    fake = FakeModel()
    yield fake
    fake.gate.set()


def test_rows_that_are_submitted_together_run_together(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher() as batching:
            submits = [batching.submit(as_model(model), [row(token)]) for token in range(4)]
            answers = await asyncio.gather(*submits)
        np.testing.assert_array_equal(np.concatenate(answers)[:, 0], range(4))

    asyncio.run(main())
    assert model.batches == [[0, 1, 2, 3]]


def test_rows_gather_while_a_batch_runs(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher() as batching:
            model.gate.clear()
            tasks = [asyncio.create_task(batching.submit(as_model(model), [row(0)]))]
            await until(model.started)
            for token in range(1, 6):
                tasks.append(asyncio.create_task(batching.submit(as_model(model), [row(token)])))
                await asyncio.sleep(0)
            model.gate.set()
            await asyncio.gather(*tasks)

    asyncio.run(main())
    assert model.batches == [[0], [1, 2, 3, 4], [5]]


def test_a_request_larger_than_a_batch_is_answered_in_its_order(model: FakeModel) -> None:
    rows = [row(token, length) for token, length in enumerate([3, 9, 1, 1, 9, 3, 3, 2, 30, 1])]

    async def main() -> NDArray[np.float32]:
        async with batcher(concurrency=2) as batching:
            return await batching.submit(as_model(model), rows)

    np.testing.assert_array_equal(asyncio.run(main()), model.expected(rows))
    assert sorted(chain.from_iterable(model.batches)) == list(range(10))
    assert max(map(len, model.batches)) <= 4


def test_a_full_batch_does_not_wait(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_delay_s=LONG_S) as batching:
            submits = [batching.submit(as_model(model), [row(token)]) for token in range(4)]
            await asyncio.wait_for(asyncio.gather(*submits), 60)

    asyncio.run(main())
    assert model.batches == [[0, 1, 2, 3]]


def test_a_batch_that_is_not_full_waits_for_others(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_delay_s=0.2) as batching:
            first = asyncio.create_task(batching.submit(as_model(model), [row(0)]))
            for _ in range(10):
                await asyncio.sleep(0)
            second = asyncio.create_task(batching.submit(as_model(model), [row(1)]))
            await asyncio.gather(first, second)
            # The delay starts anew for what comes while a batch runs.
            await batching.submit(as_model(model), [row(2)])

    asyncio.run(main())
    assert model.batches == [[0, 1], [2]]


def test_a_row_left_over_by_a_full_batch_is_not_forgotten(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_delay_s=0.02) as batching:
            await batching.submit(as_model(model), [row(token) for token in range(5)])

    asyncio.run(main())
    assert model.batches == [[0, 1, 2, 3], [4]]


def test_models_do_not_share_batches_and_the_oldest_goes_first() -> None:
    first, second = FakeModel("first"), FakeModel("second", factor=10)
    order: list[str] = []

    async def main() -> None:
        async with batcher() as batching:
            first.gate.clear()

            async def submit(fake: FakeModel, token: int) -> None:
                answer = await batching.submit(as_model(fake), [row(token)])
                np.testing.assert_array_equal(answer, fake.expected([row(token)]))
                order.append(f"{fake.name} {token}")

            tasks = [asyncio.create_task(submit(first, 0))]
            await until(first.started)
            for fake, token in [(second, 1), (first, 2), (second, 3), (first, 4)]:
                tasks.append(asyncio.create_task(submit(fake, token)))
            await asyncio.sleep(0)
            first.gate.set()
            await asyncio.gather(*tasks)

    asyncio.run(main())
    assert order == ["first 0", "second 1", "second 3", "first 2", "first 4"]


def test_batches_run_at_once_up_to_the_concurrency() -> None:
    meeting = threading.Barrier(2)

    class Meeting(FakeModel):
        def run(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
            meeting.wait(60)
            return super().run(rows)

    async def main() -> None:
        async with batcher(concurrency=2, max_batch_size=1) as batching:
            await batching.submit(as_model(Meeting()), [row(token) for token in range(6)])

    asyncio.run(main())


def test_a_bad_request_fails_alone(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_batch_size=8) as batching:
            good, bad, other = await asyncio.gather(
                batching.submit(as_model(model), [row(1), row(2)]),
                batching.submit(as_model(model), [row(3), row(BAD)]),
                batching.submit(as_model(model), [row(4)]),
                return_exceptions=True,
            )
            np.testing.assert_array_equal(good, model.expected([row(1), row(2)]))
            assert isinstance(bad, InferenceFailed)
            np.testing.assert_array_equal(other, model.expected([row(4)]))

    asyncio.run(main())
    assert model.batches == [[1, 2], [4]]


def test_what_waits_of_a_failed_request_does_not_run(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_batch_size=1) as batching:
            with pytest.raises(InferenceFailed, match="a bad row"):
                await batching.submit(as_model(model), [row(BAD), row(1), row(2)])
            await batching.submit(as_model(model), [row(3)])

    asyncio.run(main())
    assert model.batches == [[3]]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_logits_than_rows_is_no_answer(
    caplog: pytest.LogCaptureFixture, count: int
) -> None:
    class Wrong(FakeModel):
        def run(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
            return np.zeros((count, 2), dtype=np.float32)

    async def main() -> None:
        async with batcher() as batching:
            with pytest.raises(InferenceFailed, match="model fake failed; the server's log says"):
                await batching.submit(as_model(Wrong()), [row(1), row(2)])

    asyncio.run(main())
    (record,) = caplog.records
    assert record.exc_info is not None


def test_rows_of_a_cancelled_request_do_not_run(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher() as batching:
            model.gate.clear()
            first = asyncio.create_task(batching.submit(as_model(model), [row(0)]))
            await until(model.started)
            cancelled = asyncio.create_task(batching.submit(as_model(model), [row(1), row(2)]))
            last = asyncio.create_task(batching.submit(as_model(model), [row(3)]))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            model.gate.set()
            await asyncio.gather(first, last)

    asyncio.run(main())
    assert model.batches == [[0], [3]]


def test_a_request_cancelled_while_it_runs_harms_nobody(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher() as batching:
            model.gate.clear()
            cancelled = asyncio.create_task(batching.submit(as_model(model), [row(0)]))
            beside = asyncio.create_task(batching.submit(as_model(model), [row(1)]))
            await until(model.started)
            cancelled.cancel()
            await asyncio.sleep(0)
            model.gate.set()
            np.testing.assert_array_equal(await beside, model.expected([row(1)]))
            assert cancelled.cancelled()

    asyncio.run(main())


def test_a_full_queue_refuses_and_says_when_to_come_back(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_queue=3) as batching:
            model.gate.clear()
            tasks = [asyncio.create_task(batching.submit(as_model(model), [row(0)]))]
            await until(model.started)
            tasks.append(asyncio.create_task(batching.submit(as_model(model), [row(1), row(2)])))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="2 texts wait, and the queue holds 3") as caught:
                await batching.submit(as_model(model), [row(3), row(4)])
            assert caught.value.retry_after_s is not None
            assert caught.value.retry_after_s >= 1
            tasks.append(asyncio.create_task(batching.submit(as_model(model), [row(5)])))
            await asyncio.sleep(0)
            tasks[1].cancel()
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(batching.submit(as_model(model), [row(6), row(7)])))
            await asyncio.sleep(0)
            model.gate.set()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert sorted(chain.from_iterable(model.batches)) == [0, 5, 6, 7]


def test_a_slow_model_asks_for_more_patience() -> None:
    class Slow(FakeModel):
        def run(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
            time.sleep(0.5)
            return super().run(rows)

    async def main() -> int:
        async with batcher(max_queue=100, max_batch_size=1) as batching:
            slow = as_model(Slow())
            await batching.submit(slow, [row(0)])
            task = asyncio.create_task(batching.submit(slow, [row(0)] * 100))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded) as caught:
                await batching.submit(slow, [row(1)])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return caught.value.retry_after_s or 0

    assert asyncio.run(main()) > 1


def test_a_request_that_can_never_fit_is_told_so(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_queue=3) as batching:
            with pytest.raises(TooLarge, match=r"4 texts in a request.*holds 3.*--max-queue"):
                await batching.submit(as_model(model), [row(token) for token in range(4)])
            assert len(await batching.submit(as_model(model), [row(0)] * 3)) == 3

    asyncio.run(main())


def test_closing_answers_what_runs_and_refuses_the_rest(model: FakeModel) -> None:
    async def main() -> None:
        async with batcher(max_batch_size=1) as batching:
            model.gate.clear()
            runs = asyncio.create_task(batching.submit(as_model(model), [row(0)]))
            await until(model.started)
            waits = asyncio.create_task(batching.submit(as_model(model), [row(1)]))
            await asyncio.sleep(0)
            model.gate.set()
            batching.close()
            np.testing.assert_array_equal(await runs, model.expected([row(0)]))
            with pytest.raises(Unavailable):
                await waits
            with pytest.raises(Unavailable):
                await batching.submit(as_model(model), [row(2)])
        assert not [thread for thread in threading.enumerate() if "inference" in thread.name]

    asyncio.run(main())
    assert model.batches == [[0]]


@pytest.mark.parametrize("token", [1, BAD])
def test_nothing_is_kept_of_a_model_that_was_served(token: int) -> None:
    async def main() -> None:
        async with batcher() as batching:
            served = FakeModel()
            freed = weakref.ref(served)
            await asyncio.gather(
                batching.submit(as_model(served), [row(token)]), return_exceptions=True
            )
            del served
            for _ in range(1000):  # the thread may not wait for its next batch yet
                if token == BAD:  # an exception and its traceback may refer to each other
                    gc.collect()
                if freed() is None:
                    return
                await asyncio.sleep(0.01)
        raise AssertionError("the model is still there")

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_metrics_tell_of_batches_and_of_the_queue(model: FakeModel) -> None:
    metrics = Metrics()

    async def main() -> bytes:
        async with batcher(metrics=metrics) as batching:
            model.gate.clear()
            task = asyncio.create_task(batching.submit(as_model(model), [row(0)]))
            await until(model.started)
            tasks = [asyncio.create_task(batching.submit(as_model(model), [row(1, 3), row(2, 4)]))]
            await asyncio.sleep(0)
            body, _ = metrics.render(None)
            model.gate.set()
            await asyncio.gather(task, *tasks)
            return body

    assert b"smp_queue_texts 2.0" in asyncio.run(main())
    body, _ = metrics.render(None)
    for line in (
        b'smp_batch_texts_count{model="fake"} 2.0',
        b'smp_batch_texts_sum{model="fake"} 3.0',
        b'smp_tokens_total{model="fake"} 8.0',
        b'smp_padding_tokens_total{model="fake"} 1.0',
        b'smp_queue_seconds_count{model="fake"} 3.0',
        b"smp_queue_texts 0.0",
    ):
        assert line in body


REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.integers(0, 2),
            "lengths": st.lists(st.integers(1, 40), min_size=1, max_size=9),
            "bad": st.integers(0, 9),  # the first row of few requests cannot be run
            "pause": st.sampled_from([None, None, 0.0, 0.0, 0.001]),
            "cancel_after": st.sampled_from([None, None, None, 0, 1, 3]),
        }
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(
    requests=REQUESTS,
    max_batch_size=st.integers(1, 9),
    max_queue=st.sampled_from([9, 20, 1000]),
    max_delay_s=st.sampled_from([0.0, 0.0, 0.002]),
    concurrency=st.integers(1, 3),
)
def test_every_request_gets_its_own_answer(
    requests: list[dict[str, Any]],
    max_batch_size: int,
    max_queue: int,
    max_delay_s: float,
    concurrency: int,
) -> None:
    models = [FakeModel(str(index), factor=index + 1) for index in range(3)]
    tokens = iter(range(1, 10_000))
    rows = [
        [
            TokenRow(
                [next(tokens), *([BAD] if index + request["bad"] == 0 else [1])] * length, [], []
            )
            for index, length in enumerate(request["lengths"])
        ]
        for request in requests
    ]

    async def ask(batching: Batcher, index: int) -> NDArray[np.float32]:
        model = models[requests[index]["model"]]
        return await batching.submit(as_model(model), rows[index])

    async def cancel_later(task: asyncio.Task[Any], ticks: int) -> None:
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()

    async def main() -> list[Any]:
        async with batcher(
            max_batch_size=max_batch_size,
            max_queue=max_queue,
            max_delay_s=max_delay_s,
            concurrency=concurrency,
        ) as batching:
            tasks, cancels = [], []
            for index, request in enumerate(requests):
                tasks.append(asyncio.create_task(ask(batching, index)))
                if request["cancel_after"] is not None:
                    cancel = cancel_later(tasks[-1], request["cancel_after"])
                    cancels.append(asyncio.create_task(cancel))
                if request["pause"] is not None:
                    await asyncio.sleep(request["pause"])
            answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
            await asyncio.gather(*cancels)
            return answers

    answers = asyncio.run(main())
    ran = [token for model in models for batch in model.batches for token in batch]
    assert len(ran) == len(set(ran)), "a row ran twice"
    assert all(len(batch) <= max_batch_size for model in models for batch in model.batches)
    for request, own, answer in zip(requests, rows, answers, strict=True):
        firsts = {row.ids[0] for row in own}
        if isinstance(answer, asyncio.CancelledError):
            assert request["cancel_after"] is not None
        elif isinstance(answer, Overloaded):
            assert sum(map(len, rows)) > max_queue
            assert firsts.isdisjoint(ran)
        elif isinstance(answer, InferenceFailed):
            assert request["bad"] == 0
        else:
            assert request["bad"] != 0
            np.testing.assert_array_equal(answer, models[request["model"]].expected(own))
            assert firsts <= set(ran)
