"""Sessions that share: the same logits, one copy of what is equal, and no trust in files."""

import dataclasses
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest

from export import export_run
from pipeline import native
from pipeline.artifacts.exported import read_exported, write_export_manifest
from pipeline.artifacts.files import sha256_file
from pipeline.config import ExportConfig
from pipeline.errors import ArtifactError
from serve import open_session
from serve.session import Session
from serve.shared_runtime import SharedRuntime
from serve.shared_weights import tables_held

pytestmark = pytest.mark.usefixtures("traced_once")

MakeModel = Callable[..., Path]
TEXTS = ["good film", "a bad and dull and awful plot was good", "the actor", "good " * 40]


@pytest.fixture
def shared() -> Iterator[SharedRuntime]:
    yield SharedRuntime(2)
    native.share_threads(0)


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def engine_model(
    request: pytest.FixtureRequest,
    native_library: Path,
    tiny_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A model of the format engine; the parameter is how its embeddings are stored."""
    directory = tmp_path_factory.mktemp("engine") / "model"
    export_run(
        ExportConfig(run=tiny_run, output_dir=directory, format="engine", embeddings=request.param)
    )
    return directory


def external(directory: Path) -> Path:
    """Move a model's weights to model.onnx.data."""
    path = directory / "model.onnx"
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    manifest = dataclasses.replace(
        read_exported(directory),
        model_sha256=sha256_file(path),
        data_sha256=sha256_file(directory / "model.onnx.data"),
    )
    write_export_manifest(directory, manifest)
    return directory


def test_sharing_does_not_change_a_bit(engine_model: Path, shared: SharedRuntime) -> None:
    apart = open_session(engine_model, threads=1).logits(TEXTS)
    sessions = [open_session(engine_model, shared=shared) for _ in range(3)]
    for session in sessions:
        np.testing.assert_array_equal(session.logits(TEXTS), apart)
        np.testing.assert_array_equal(session.logits(TEXTS[:1]), apart[:1])


def test_sharing_does_not_change_a_bit_of_other_formats(
    make_model: MakeModel, tmp_path: Path, shared: SharedRuntime
) -> None:
    directory = make_model(tmp_path / "model")
    for path in (directory, external(shutil.copytree(directory, tmp_path / "external"))):
        apart = open_session(path, threads=1).logits(TEXTS)
        np.testing.assert_array_equal(open_session(path, shared=shared).logits(TEXTS), apart)


def test_weights_in_a_second_file_are_shared_too(
    engine_model: Path, tmp_path: Path, shared: SharedRuntime
) -> None:
    apart = open_session(engine_model, threads=1).logits(TEXTS)
    one = open_session(engine_model, shared=shared)
    held = tables_held()
    assert held > 0
    other = open_session(
        external(shutil.copytree(engine_model, tmp_path / "external")), shared=shared
    )
    assert tables_held() == held
    np.testing.assert_array_equal(other.logits(TEXTS), apart)
    del one
    gc.collect()
    assert tables_held() == held
    np.testing.assert_array_equal(other.logits(TEXTS), apart)


def test_what_is_shared_goes_with_the_last_session(
    engine_model: Path, engine: Any, shared: SharedRuntime
) -> None:
    gc.collect()
    assert tables_held() == 0
    sessions = [open_session(engine_model, shared=shared) for _ in range(3)]
    tables, products = tables_held(), engine.smp_engine_products_held()
    assert tables > 0
    sessions = sessions[:1]
    gc.collect()
    assert (tables_held(), engine.smp_engine_products_held()) == (tables, products)
    sessions.clear()
    gc.collect()
    assert (tables_held(), engine.smp_engine_products_held()) == (0, 0)


def test_other_embeddings_are_not_taken_for_equal(
    engine_model: Path, tmp_path: Path, shared: SharedRuntime
) -> None:
    changed = shutil.copytree(engine_model, tmp_path / "changed")
    model = onnx.load(changed / "model.onnx")
    for tensor in model.graph.initializer:
        if "word_embeddings" in tensor.name:
            tensor.raw_data = tensor.raw_data[::-1]
    onnx.save(model, changed / "model.onnx")
    digest = sha256_file(changed / "model.onnx")
    write_export_manifest(changed, dataclasses.replace(read_exported(changed), model_sha256=digest))
    expected = open_session(changed, threads=1).logits(TEXTS)
    first = open_session(engine_model, shared=shared)
    np.testing.assert_array_equal(open_session(changed, shared=shared).logits(TEXTS), expected)
    assert not np.array_equal(first.logits(TEXTS), expected)


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "removed"])
def test_an_open_session_needs_its_files_no_more(
    engine_model: Path, tmp_path: Path, shared: SharedRuntime, damage: str
) -> None:
    directory = shutil.copytree(engine_model, tmp_path / "model")
    session = open_session(directory, shared=shared)
    before = session.logits(TEXTS)
    path = directory / "model.onnx"
    if damage == "truncated":
        os.truncate(path, 0)
    elif damage == "overwritten":
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
    else:
        shutil.rmtree(directory)
    np.testing.assert_array_equal(session.logits(TEXTS), before)
    np.testing.assert_array_equal(session.logits(TEXTS * 9)[: len(TEXTS)], before)


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json"])
def test_a_model_that_is_replaced_while_it_is_read_is_refused(
    make_model: MakeModel,
    tmp_path: Path,
    shared: SharedRuntime,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
) -> None:
    directory = make_model(tmp_path / "model")
    other = make_model(tmp_path / "other", scale=-1.0)
    configure = SharedRuntime.configure

    def replace(self: SharedRuntime, *arguments: Any, **settings: Any) -> None:
        (other / file).replace(directory / file)
        configure(self, *arguments, **settings)

    monkeypatch.setattr(SharedRuntime, "configure", replace)
    with pytest.raises(ArtifactError, match="was replaced while it was read; open it again"):
        open_session(directory, shared=shared)


def test_tokenizers_are_shared_by_their_bytes_and_length(
    make_model: MakeModel, tmp_path: Path, shared: SharedRuntime
) -> None:
    def tokenizer(name: str, **settings: Any) -> tuple[Session, Any]:
        session = open_session(make_model(tmp_path / name, **settings), shared=shared)
        return session, session._tokenizer

    one, two, short = tokenizer("one"), tokenizer("two"), tokenizer("short", max_length=6)
    assert one[1] is two[1]
    assert short[1] is not one[1]
    assert len(short[0].encode(["good " * 40])[0].ids) == 6
    assert len(one[0].encode(["good " * 40])[0].ids) == 32


def test_engine_sessions_have_no_threads_of_their_own(
    engine_model: Path, shared: SharedRuntime
) -> None:
    sessions = [open_session(engine_model, shared=shared)]
    sessions[0].logits(TEXTS)
    threads = psutil.Process().num_threads()
    sessions += [open_session(engine_model, shared=shared) for _ in range(4)]
    for session in sessions:
        session.logits(TEXTS)
    assert psutil.Process().num_threads() == threads


def test_sessions_that_share_threads_may_run_at_once(
    engine_model: Path, shared: SharedRuntime
) -> None:
    sessions = [open_session(engine_model, shared=shared) for _ in range(3)]
    expected = [sessions[0].logits(TEXTS[: 1 + index % 4]) for index in range(24)]
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(
            lambda index: sessions[index % 3].logits(TEXTS[: 1 + index % 4]), range(24)
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
