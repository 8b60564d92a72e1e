import asyncio
import gc
import json
import logging
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ServeConfig
from pipeline.errors import ArtifactError, ConfigurationError
from serve.server import repository as repository_module
from serve.server.errors import NotFound, Unavailable
from serve.server.metrics import Metrics
from serve.server.repository import Repository
from serve.server.text_model import TextModel, Texts

MakeModel = Callable[..., Path]

POLL_S = 0.02


@pytest.fixture
def make_repository() -> Iterator[Callable[..., Repository]]:
    """A function that makes repositories, which are closed after the test."""
    made: list[Repository] = []

    def make(*paths: Path, **changes: Any) -> Repository:
        config = ServeConfig(models=paths, threads=1, **changes)
        made.append(Repository(config, Metrics()))
        return made[-1]

    yield make
    for repository in made:
        repository.close()


def answer(model: TextModel, text: str) -> list[float]:
    return model.run(model.tokenise(Texts([text], None)))[0].tolist()


def states(repository: Repository) -> dict[str, str]:
    return {entry.name: entry.state for entry in repository.index()}


def reason(repository: Repository, name: str) -> str:
    (found,) = (entry.reason for entry in repository.index() if entry.name == name)
    return found


def break_graph(directory: Path) -> bytes:
    """Cut the end of the graph off, as a copy that is not done looks like; returns it whole."""
    graph = directory / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-9])
    return whole


def replace_model(directory: Path, other: Path) -> None:
    """Put another model in a directory's place, as `export --overwrite` does."""
    old = directory.with_name(f".{directory.name}.old")
    directory.rename(old)
    other.rename(directory)
    shutil.rmtree(old)


async def watched(repository: Repository, condition: Callable[[], bool]) -> None:
    """Watch until a condition holds."""
    watching = asyncio.create_task(repository.watch())
    try:
        async with asyncio.timeout(60):
            while not condition():
                assert not watching.done()
                await asyncio.sleep(POLL_S)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


# Finding models


@pytest.mark.parametrize("name", ["mein modell", "übel", "a+b", "-dash", "a%20b"])
def test_a_name_that_cannot_stand_in_a_url_is_refused(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path, name: str
) -> None:
    make_model(tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(ConfigurationError, match="cannot stand in a URL; rename it"):
            make_repository(path)


def test_two_models_of_one_name_are_refused(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    first = make_model(tmp_path / "one" / "reviews")
    second = make_model(tmp_path / "two" / "reviews")
    for paths in ((first, second), (first.parent, second.parent), (first, second.parent)):
        with pytest.raises(ConfigurationError, match="would both be the model reviews"):
            make_repository(*paths)


def test_the_command_line_may_name_a_model_otherwise(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "v7")
    repository = make_repository(Path(f"reviews={directory}"), directory)
    assert set(states(repository)) == {"reviews", "v7"}
    strange = make_model(tmp_path / "a=b")
    with pytest.raises(ConfigurationError, match="cannot stand in a URL"):
        make_repository(strange)
    assert set(states(make_repository(Path(f"ab={strange}")))) == {"ab"}
    for wrong in (f"x={tmp_path / 'nothing'}", f"={directory}", f"x={tmp_path}"):
        with pytest.raises(ConfigurationError, match="MODELS: "):
            make_repository(Path(wrong))


def test_a_directory_that_can_never_be_served_is_refused_at_once(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing cannot be read \(No such file"):
        make_repository(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="holds no model directory"):
        make_repository(tmp_path)
    assert make_repository(tmp_path, watch_s=1.0).index() == []
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text(json.dumps({"kind": "smp-run", "schema_version": 1}))
    with pytest.raises(ArtifactError, match="expected a file of kind 'smp-model'"):
        make_repository(run)


def test_a_directory_of_models_has_the_names_of_its_subdirectories(
    make_model: MakeModel,
    make_repository: Callable[..., Repository],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_model(tmp_path / "many" / "b-2")
    make_model(tmp_path / "many" / "a_1.x")
    make_model(tmp_path / "many" / ".c.staged")
    (tmp_path / "many" / "notes").mkdir()
    (tmp_path / "many" / "README.md").write_text("models")
    (tmp_path / "current").symlink_to(tmp_path / "many" / "b-2")
    repository = make_repository(tmp_path / "many", tmp_path / "current")
    assert list(states(repository)) == ["a_1.x", "b-2", "current"]
    monkeypatch.chdir(tmp_path / "many" / "b-2")
    assert list(states(make_repository(Path()))) == ["b-2"]
    monkeypatch.chdir(tmp_path)
    assert list(states(make_repository(Path("many/b-2/")))) == ["b-2"]


# Loading


def test_models_answer_once_they_are_loaded(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    repository = make_repository(make_model(tmp_path / "right"), make_model(tmp_path / "wrong"))
    assert not repository.ready()
    assert not repository.model_ready("right", "")
    with pytest.raises(Unavailable):
        repository.get("right", "")
    asyncio.run(repository.load_all())
    assert repository.ready()
    assert states(repository) == {"right": "READY", "wrong": "READY"}
    assert repository.model_ready("right", "1")
    assert repository.get("right", "1") is repository.get("right", "")
    assert answer(repository.get("right", ""), "good film") == [-1.0, 1.0]


def test_unknown_models_and_versions_are_not_found(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    repository = make_repository(make_model(tmp_path / "reviews"))
    asyncio.run(repository.load_all())
    for call in (repository.get, repository.model_ready):
        with pytest.raises(NotFound, match="no model 'other'"):
            call("other", "")
        with pytest.raises(NotFound, match="no version '2'; it has 1"):
            call("reviews", "2")
    for change in (repository.load, repository.unload):
        for name in ("other", "../reviews", ""):
            with pytest.raises(NotFound):
                asyncio.run(change(name))


def test_a_broken_model_that_is_named_ends_the_start(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "reviews")
    break_graph(directory)
    repository = make_repository(directory)
    with pytest.raises(ArtifactError, match=rf"{directory}/model\.onnx is truncated"):
        asyncio.run(repository.load_all())
    assert not repository.ready()


def test_a_broken_model_in_a_directory_of_models_is_left_out(
    make_model: MakeModel,
    make_repository: Callable[..., Repository],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_model(tmp_path / "models" / "good")
    break_graph(make_model(tmp_path / "models" / "broken"))
    repository = make_repository(tmp_path / "models")
    asyncio.run(repository.load_all())
    assert repository.ready()
    assert states(repository) == {"broken": "UNAVAILABLE", "good": "READY"}
    with pytest.raises(Unavailable, match=r"model\.onnx is truncated") as caught:
        repository.get("broken", "")
    for public in (reason(repository, "broken"), str(caught.value)):
        assert "model.onnx is truncated" in public
        assert str(tmp_path) not in public
    assert [record.fields["model"] for record in caplog.records] == ["broken"]


def test_a_model_that_cannot_run_a_text_does_not_take_requests(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    make_model(tmp_path / "models" / "short", positions=2)
    repository = make_repository(tmp_path / "models")
    asyncio.run(repository.load_all())
    assert states(repository) == {"short": "UNAVAILABLE"}
    assert "cannot run" in reason(repository, "short")
    assert str(tmp_path) not in reason(repository, "short")


def test_paths_of_other_places_do_not_get_out_either(
    make_model: MakeModel,
    make_repository: Callable[..., Repository],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_model(tmp_path / "models" / "reviews")
    repository = make_repository(tmp_path / "models")

    def fail(*_: object, **__: object) -> None:
        raise ArtifactError("/opt/secret/lib/libthing.so is missing (in /home/me/x.py); install it")

    monkeypatch.setattr(repository_module, "open_session", fail)
    asyncio.run(repository.load_all())
    assert reason(repository, "reviews") == "libthing.so is missing (in x.py); install it"


def test_a_model_that_came_later_can_be_loaded_by_name(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    make_model(tmp_path / "models" / "first")
    repository = make_repository(tmp_path / "models")

    async def main() -> None:
        await repository.load_all()
        make_model(tmp_path / "models" / "second")
        await repository.load("second")

    asyncio.run(main())
    assert states(repository) == {"first": "READY", "second": "READY"}


def test_the_former_model_answers_while_and_after_a_load_that_fails(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "reviews")
    repository = make_repository(directory)

    async def main() -> None:
        await repository.load_all()
        former = repository.get("reviews", "")
        whole = break_graph(directory)
        with pytest.raises(Unavailable, match=r"cannot be loaded: model\.onnx is truncated"):
            await repository.load("reviews")
        assert repository.get("reviews", "") is former
        assert states(repository) == {"reviews": "READY"}
        assert "truncated" in reason(repository, "reviews")
        (directory / "model.onnx").write_bytes(whole)
        loading = asyncio.create_task(repository.load("reviews"))
        await asyncio.sleep(0)
        assert repository.get("reviews", "") is former
        await loading
        assert repository.get("reviews", "") is not former
        assert reason(repository, "reviews") == ""

    asyncio.run(main())


def test_loads_of_one_name_follow_each_other_and_of_two_names_meet(
    make_model: MakeModel,
    make_repository: Callable[..., Repository],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = repository_module.open_session
    loading: list[str] = []
    meeting = threading.Barrier(2)

    def open_slowly(directory: Path, **arguments: Any) -> Any:
        assert directory.name not in loading
        loading.append(directory.name)
        if loading.count("met") == 0:
            meeting.wait(60)
            loading.append("met")
        session = real(directory, **arguments)
        loading.remove(directory.name)
        return session

    repository = make_repository(make_model(tmp_path / "a"), make_model(tmp_path / "b"))

    async def main() -> None:
        monkeypatch.setattr(repository_module, "open_session", open_slowly)
        await repository.load_all()
        await asyncio.gather(
            repository.load("a"), repository.unload("a"), repository.load("a"), repository.load("a")
        )

    asyncio.run(main())
    assert states(repository) == {"a": "READY", "b": "READY"}


def test_a_server_without_a_working_model_is_not_ready_until_one_works(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "many" / "a")
    whole = break_graph(directory)
    repository = make_repository(tmp_path / "many")
    asyncio.run(repository.load_all())
    assert states(repository) == {"a": "UNAVAILABLE"} and not repository.ready()
    (directory / "model.onnx").write_bytes(whole)
    asyncio.run(repository.load("a"))
    assert repository.ready()
    asyncio.run(repository.unload("a"))
    assert repository.ready()


def test_callers_share_a_load_that_has_not_begun(
    make_model: MakeModel,
    make_repository: Callable[..., Repository],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = repository_module.open_session
    loaded: list[str] = []

    def open_and_note(directory: Path, **arguments: Any) -> Any:
        loaded.append(directory.name)
        return real(directory, **arguments)

    repository = make_repository(make_model(tmp_path / "a"))

    async def main() -> None:
        await repository.load_all()
        monkeypatch.setattr(repository_module, "open_session", open_and_note)
        running = asyncio.create_task(repository.load("a"))
        while not loaded:
            await asyncio.sleep(0.001)
        await asyncio.gather(running, *(repository.load("a") for _ in range(20)))

    asyncio.run(main())
    assert loaded == ["a", "a"]


def test_a_load_goes_on_when_its_caller_is_gone(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    repository = make_repository(make_model(tmp_path / "reviews"))

    async def main() -> None:
        caller = asyncio.create_task(repository.load("reviews"))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert states(repository) == {"reviews": "LOADING"}
        with pytest.raises(Unavailable, match="is loading") as caught:
            repository.get("reviews", "")
        assert caught.value.retry_after_s == 1
        async with asyncio.timeout(60):
            while not repository.model_ready("reviews", ""):
                await asyncio.sleep(POLL_S)

    asyncio.run(main())


# Unloading


def test_an_unloaded_model_is_freed_after_its_last_request(
    make_model: MakeModel, make_repository: Callable[..., Repository], tmp_path: Path
) -> None:
    repository = make_repository(make_model(tmp_path / "reviews"))

    async def main() -> None:
        await repository.load_all()
        held = repository.get("reviews", "")
        freed = weakref.ref(held.session)
        await repository.unload("reviews")
        await repository.unload("reviews")
        with pytest.raises(Unavailable, match="not loaded: unloaded"):
            repository.get("reviews", "")
        assert not repository.model_ready("reviews", "")
        assert states(repository) == {"reviews": "UNAVAILABLE"}
        assert answer(held, "bad film") == [1.0, -1.0]
        del held
        gc.collect()
        assert freed() is None
        await repository.load("reviews")
        assert answer(repository.get("reviews", ""), "bad film") == [1.0, -1.0]

    asyncio.run(main())


def test_changes_are_logged_and_counted(
    make_model: MakeModel,
    make_repository: Callable[..., Repository],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="smp_pipeline.serve")
    directory = make_model(tmp_path / "reviews")
    config = ServeConfig(models=(directory,), threads=1)
    metrics = Metrics()
    repository = Repository(config, metrics)

    async def main() -> None:
        await repository.load_all()
        await repository.load("reviews")
        assert b'smp_model_ready{model="reviews"} 1.0' in metrics.render(None)[0]
        break_graph(directory)
        with pytest.raises(Unavailable):
            await repository.load("reviews")
        assert b'smp_model_ready{model="reviews"} 1.0' in metrics.render(None)[0]
        await repository.unload("reviews")

    try:
        asyncio.run(main())
    finally:
        repository.close()
    body, _ = metrics.render(None)
    for event in ("loaded", "reloaded", "load_failed", "unloaded"):
        line = f'smp_model_events_total{{event="{event}",model="reviews"}} 1.0'
        assert line.encode() in body
    assert b"smp_model_ready{" not in body
    events = [record.message for record in caplog.records]
    assert events == ["model loaded", "model reloaded", "model load failed", "model unloaded"]


# Watching


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


def reasons(repository: Repository) -> dict[str, str]:
    return {entry.name: entry.reason for entry in repository.index()}
