import threading

import pytest

from serve.weak_cache import WeakCache


def test_a_value_is_made_once_while_somebody_holds_it() -> None:
    cache: WeakCache[list[int]] = WeakCache()
    first = cache.get("key", lambda: [1])
    second = cache.get("key", lambda: [2])
    other = cache.get("other", lambda: [3])
    assert second.value is first.value
    assert other.value == [3]
    assert len(cache) == 2


def test_a_value_goes_with_its_last_holder() -> None:
    cache: WeakCache[list[int]] = WeakCache()
    first = cache.get("key", lambda: [1])
    second = cache.get("key", lambda: [2])
    del first
    assert len(cache) == 1
    del second
    assert len(cache) == 0
    assert cache.get("key", lambda: [2]).value == [2]


def test_what_cannot_be_made_is_tried_again() -> None:
    cache: WeakCache[int] = WeakCache()

    def fail() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.get("key", fail)
    assert cache.get("key", lambda: 7).value == 7


def test_threads_that_ask_at_once_get_the_same() -> None:
    cache: WeakCache[object] = WeakCache()
    barrier = threading.Barrier(8)
    found = []

    def ask() -> None:
        barrier.wait()
        found.append(cache.get("key", object))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(held.value) for held in found}) == 1
