"""Things that are kept as long as somebody holds them."""

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Held", "WeakCache"]

Value = TypeVar("Value")


class Held(Generic[Value]):
    """A value; it stays in its cache until the last holder of this object is gone."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Value) -> None:
        self.value = value


class WeakCache(Generic[Value]):
    """One value a key for all threads of the process, without keeping any alive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: weakref.WeakValueDictionary[Hashable, Held[Value]] = (
            weakref.WeakValueDictionary()
        )

    def get(self, key: Hashable, make: Callable[[], Value]) -> Held[Value]:
        """The key's value, made if nobody holds it; what ``make`` raises is passed on."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = Held(make())
            return held

    def __len__(self) -> int:
        """How many values somebody holds."""
        return len(self._held)
