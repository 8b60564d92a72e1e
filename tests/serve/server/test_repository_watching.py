import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.server.errors import NotFound
from serve.server.repository import Repository
from tests.serve.server.repositories import (
    POLL_S,
    answer,
    break_graph,
    reason,
    reasons,
    replace_model,
    states,
    watched,
)

MakeModel = Callable[..., Path]


def test_watching_loads_new_reloads_changed_and_unloads_removed_models(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    root = tmp_path / "models"
    make_model(root / "first")
    repository = make_repository(root, watch_s=POLL_S)

    async def main() -> None:
        await repository.load_all()
        make_model(tmp_path / "second").rename(root / "second")
        await watched(repository, lambda: states(repository).get("second") == "READY")
        former = repository.get("first", "")
        replace_model(root / "first", make_model(tmp_path / "inverted", scale=-1.0))
        await watched(repository, lambda: repository.get("first", "") is not former)
        assert answer(repository.get("first", ""), "good") == [1.0, -1.0]
        shutil.rmtree(root / "second")
        await watched(repository, lambda: "second" not in states(repository))
        with pytest.raises(NotFound):
            repository.get("second", "")

    asyncio.run(main())


def test_watching_leaves_alone_what_did_not_change_and_what_was_unloaded(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    root = tmp_path / "models"
    make_model(root / "kept")
    make_model(root / "unloaded")
    repository = make_repository(root, watch_s=POLL_S)

    async def main() -> None:
        await repository.load_all()
        kept = repository.get("kept", "")
        await repository.unload("unloaded")
        os.utime(root / "unloaded" / "manifest.json")
        make_model(tmp_path / "later").rename(root / "later")
        await watched(repository, lambda: states(repository).get("later") == "READY")
        assert repository.get("kept", "") is kept
        assert states(repository)["unloaded"] == "UNAVAILABLE"

    asyncio.run(main())


def test_a_copy_that_is_not_done_is_taken_up_when_it_is(
    make_model: MakeModel,
    make_repository: Callable[..., Repository],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = tmp_path / "models"
    make_model(root / "first")
    repository = make_repository(root, watch_s=POLL_S)

    async def main() -> None:
        await repository.load_all()
        second = make_model(tmp_path / "second")
        whole = break_graph(second)
        second.rename(root / "second")
        await watched(repository, lambda: "truncated" in reasons(repository).get("second", ""))
        # More of it arrives, and still not all: tried again, and not logged again.
        counted = 'smp_model_events_total{event="load_failed",model="second"} 2.0'
        metrics = repository._metrics
        (root / "second" / "model.onnx").write_bytes(whole[:-5])
        await watched(repository, lambda: counted in metrics.render(None)[0].decode())
        assert len(caplog.records) == 1
        (root / "second" / "model.onnx").write_bytes(whole)
        await watched(repository, lambda: states(repository)["second"] == "READY")
        assert reasons(repository) == {"first": "", "second": ""}

    asyncio.run(main())


def test_a_named_model_whose_directory_vanished_goes_on(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "reviews")
    repository = make_repository(directory, watch_s=POLL_S)

    async def main() -> None:
        await repository.load_all()
        former = repository.get("reviews", "")
        directory.rename(tmp_path / "elsewhere")
        await watched(repository, lambda: "no model directory" in reason(repository, "reviews"))
        assert repository.get("reviews", "") is former
        (tmp_path / "elsewhere").rename(directory)
        await watched(repository, lambda: repository.get("reviews", "") is not former)
        assert reason(repository, "reviews") == ""

    asyncio.run(main())
