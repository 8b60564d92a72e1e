import asyncio
import gc
import json
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ServeConfig
from pipeline.errors import ArtifactError, ConfigurationError
from serve.server import repository as repository_module
from serve.server.errors import NotFound, Unavailable
from serve.server.metrics import Metrics
from serve.server.repository import Repository
from tests.serve.server.repositories import (
    POLL_S,
    answer,
    break_graph,
    reason,
    states,
)

MakeModel = Callable[..., Path]


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
