"""What tests do to model directories, and ask a repository."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from serve.server.repository import Repository
from serve.server.text_model import TextModel, Texts

POLL_S = 0.02


def answer(model: TextModel, text: str) -> list[float]:
    return model.run(list(model.tokenise(Texts([text], None))))[0].tolist()


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


def reasons(repository: Repository) -> dict[str, str]:
    return {entry.name: entry.reason for entry in repository.index()}
