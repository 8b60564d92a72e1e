"""The models of a server: found in directories, loaded beside the requests, swapped at once."""

import asyncio
import logging
import re
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from pipeline.artifacts.exported import read_exported
from pipeline.config import ServeConfig
from pipeline.errors import ArtifactError, ConfigurationError
from serve.server.directories import Place, Stamp, find_models, stamp
from serve.server.errors import NotFound, Unavailable
from serve.server.logs import log
from serve.server.metrics import Metrics
from serve.server.protocol import IndexEntry
from serve.server.text_model import VERSION, TextModel
from serve.server.token_model import open_model
from serve.session import open_session
from serve.shared_runtime import SharedRuntime

__all__ = ["Repository"]

# Models that load at once; each is read, hashed and opened, which takes a core and its size twice.
_LOADS = 2

# The directories before a file's name.
_DIRECTORIES = re.compile(r"(?<![\w.])/(?:[^\s/:;,]+/)+")


@dataclass(eq=False)
class _Slot:
    """One name of the repository, and the model that answers to it.

    Attributes:
        place: where it lies.
        model: what answers; None while nothing does.
        reason: why the last load failed, or why there is no model; empty if all is well.
        stamp: the files as they were before the last load.
        is_loading: whether a load runs.
        is_unloaded: whether somebody unloaded it, so that watching leaves it alone.
        is_missing: whether the directory was not there when last looked for.
        next_load: a load by name that has not begun; further callers wait for it, too.
        lock: held by whatever changes the model.
    """

    place: Place
    model: TextModel | None = None
    reason: str = ""
    stamp: Stamp | None = None
    is_loading: bool = False
    is_unloaded: bool = False
    is_missing: bool = False
    next_load: asyncio.Task[None] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def has_failed(self) -> bool:
        return self.model is None and not self.is_unloaded

    def entry(self) -> IndexEntry:
        if self.model is not None:
            return IndexEntry(self.place.name, VERSION, "READY", self.reason)
        state: Literal["LOADING", "UNAVAILABLE"] = "LOADING" if self.is_loading else "UNAVAILABLE"
        return IndexEntry(self.place.name, "", state, self.reason)


class Repository:
    """Models by name; used from one event loop, while threads of its own load them.

    A load that fails leaves the former model in service. A model that was replaced or unloaded
    lives until the last request that holds it is answered.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        """Look at the directories, without loading anything.

        Raises:
            ArtifactError: a directory that the command line names is no complete model directory.
            ConfigurationError: a directory is missing, holds no model, or has a name that cannot
                be used or that another one has as well.
        """
        self._config = config
        self._metrics = metrics
        places, problems = find_models(config.models)
        if problems:
            raise ConfigurationError(problems[0])
        if not places and not config.watch_s:
            raise ConfigurationError(
                f"MODELS: {config.models[0]} holds no model directory; export into it, or give "
                "--watch-s to wait for one"
            )
        for place in places:
            if place.is_direct:
                read_exported(place.directory)
        self._runtime = SharedRuntime(config.threads)
        self._slots = {place.name: _Slot(place) for place in places}
        self._problems: set[str] = set()
        self._is_ready = False
        self._loaders = ThreadPoolExecutor(_LOADS, thread_name_prefix="load")
        self._changes: set[asyncio.Future[None]] = set()

    def get(self, name: str, version: str) -> TextModel:
        """The model that answers to a name now.

        Raises:
            NotFound: there is no such model or version.
            Unavailable: it is loading, unloaded, or cannot be loaded.
        """
        slot = self._slot(name, version)
        if slot.model is not None:
            return slot.model
        if slot.is_loading:
            raise Unavailable(f"model {name} is loading; come back later", retry_after_s=1)
        raise Unavailable(f"model {name} is not loaded: {slot.reason or 'it is next to load'}")

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a model answers.

        Raises:
            NotFound: there is no such model or version.
        """
        return self._slot(name, version).model is not None

    def ready(self) -> bool:
        """Whether :meth:`load_all` has returned, and not every model failed to load."""
        slots = self._slots.values()
        return self._is_ready and (not slots or not all(slot.has_failed for slot in slots))

    def index(self) -> list[IndexEntry]:
        """All models, by name, whether they answer or not."""
        return [self._slots[name].entry() for name in sorted(self._slots)]

    async def load_all(self) -> None:
        """Load all models that were found at the start.

        Raises:
            ArtifactError: one that the command line names cannot be loaded. One inside a directory
                of models is logged and left out.
            MachineError: a package or the native library is missing for it.
        """
        tasks = [asyncio.create_task(self._load_first(slot)) for slot in self._slots.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        self._is_ready = True

    async def load(self, name: str) -> None:
        """Load a model, or load it anew; the former one answers until the new one is there.

        Goes on if the caller is cancelled.

        Raises:
            NotFound: there is no model directory of this name.
            Unavailable: it cannot be loaded.
        """
        if name not in self._slots:
            await self._look_again()
        slot = self._slots.get(name)
        if slot is None:
            raise _unknown(name)
        if slot.next_load is None:
            slot.next_load = asyncio.create_task(self._load(slot))
        try:
            await self._change(slot.next_load)
        except Exception as error:
            raise Unavailable(f"model {name} cannot be loaded: {slot.reason}") from error

    async def unload(self, name: str) -> None:
        """Take a model out of service; requests that hold it are answered.

        Raises:
            NotFound: there is no such model.
        """
        slot = self._slots.get(name)
        if slot is None:
            raise _unknown(name)
        slot.next_load = None  # whoever loads from now on wants it loaded after this
        await self._change(self._unload(slot))

    async def watch(self) -> None:
        """Load new, reload changed and unload removed models again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._config.watch_s)
            try:
                await self._poll()
            except Exception as error:  # a directory that cannot be read now may be read later
                self._report(f"cannot look for models: {error}")

    def close(self) -> None:
        """Give up what is loading, and let go of all models."""
        for task in self._changes:
            task.cancel()
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self._slots.clear()

    def _slot(self, name: str, version: str) -> _Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise _unknown(name)
        if version not in ("", VERSION):
            raise NotFound(f"model {name} has no version {version[:40]!r}; it has {VERSION}")
        return slot

    async def _load_first(self, slot: _Slot) -> None:
        try:
            await self._load(slot)
        except Exception:
            if slot.place.is_direct:
                raise

    async def _load(self, slot: _Slot) -> None:
        """Load a model and put it in the place of the former one; logs and counts what happens."""
        name = slot.place.name
        async with slot.lock:
            slot.next_load = None  # whoever asks from now on wants what the files are then
            slot.is_loading = True
            slot.is_unloaded = False
            try:
                loop = asyncio.get_running_loop()
                # Before the files are read: what changes from then on is loaded again.
                slot.stamp = await asyncio.to_thread(stamp, slot.place.directory)
                model = await loop.run_in_executor(self._loaders, self._open, slot.place)
            except Exception as error:
                self._failed(slot, error)
                raise
            finally:
                slot.is_loading = False
            event = "loaded" if slot.model is None else "reloaded"
            slot.model = model
            slot.reason = ""
            self._metrics.model_event(name, event, ready=True)
            log(
                logging.INFO,
                f"model {event}",
                model=name,
                sha256=model.manifest.model_sha256,
                session_ms=round(model.session.load_ms, 1),
            )

    def _open(self, place: Place) -> TextModel:
        """Open a model and run it once; a loader thread's job."""
        try:
            session = open_session(place.directory, shared=self._runtime)
            model = open_model(place.name, session)
        except OSError as error:
            raise ArtifactError(
                f"{place.directory} cannot be read ({error.strerror}); mend its permissions or "
                "copy it again"
            ) from error
        model.warm_up()
        return model

    def _failed(self, slot: _Slot, error: Exception) -> None:
        name, directory = slot.place.name, str(slot.place.directory)
        text = str(error) or type(error).__name__
        reason = _DIRECTORIES.sub("", text.replace(f"{directory}/", "").replace(directory, name))
        self._metrics.model_event(name, "load_failed", ready=slot.model is not None)
        if reason != slot.reason:
            fields = {"model": name, "reason": text, "former_serves": slot.model is not None}
            log(logging.WARNING, "model load failed", **fields)
        slot.reason = reason

    async def _unload(self, slot: _Slot) -> None:
        name = slot.place.name
        async with slot.lock:
            slot.is_unloaded = True
            slot.reason = "unloaded"
            if slot.model is not None:
                slot.model = None
                self._metrics.model_event(name, "unloaded", ready=False)
                log(logging.INFO, "model unloaded", model=name)
            self._metrics.forget(name)

    async def _look_again(self) -> None:
        """Take up the models that were added since."""
        places, problems = await asyncio.to_thread(find_models, self._config.models)
        for problem in problems:
            self._report(problem)
        for place in places:
            self._slots.setdefault(place.name, _Slot(place))

    async def _poll(self) -> None:
        await self._look_again()
        slots = list(self._slots.values())
        places = [slot.place for slot in slots]
        stamps = await asyncio.to_thread(lambda: [stamp(place.directory) for place in places])
        changes: list[Awaitable[None]] = []
        for slot, now in zip(slots, stamps, strict=True):
            was_missing = slot.is_missing
            slot.is_missing = not slot.place.directory.is_dir()
            if slot.is_missing and not slot.place.is_direct:
                # Not at the first look: whoever replaces a directory renames twice.
                if was_missing:
                    changes.append(self._remove(slot))
            elif now != slot.stamp and not slot.is_unloaded and not slot.is_loading:
                changes.append(self._load(slot))
        await asyncio.gather(*changes, return_exceptions=True)

    async def _remove(self, slot: _Slot) -> None:
        await self._unload(slot)
        if self._slots.get(slot.place.name) is slot:
            del self._slots[slot.place.name]

    async def _change(self, change: Awaitable[None]) -> None:
        """Await a change that goes on if the caller is cancelled."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changed)
        await asyncio.shield(task)

    def _changed(self, task: asyncio.Future[None]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # logged where it was raised; its caller may be gone

    def _report(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.add(problem)
            log(logging.WARNING, "model directories", problem=problem)


def _unknown(name: str) -> NotFound:
    return NotFound(f"no model {name[:100]!r}; the repository's index lists those there are")
