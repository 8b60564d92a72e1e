"""The operators inside ONNX Runtime: threads, and what sessions share and report."""

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.serve.c_api import report
from tests.serve.op_models import COLUMNS, HIDDEN, EncoderModel, LinearModel, a_mask, values

Array = NDArray[Any]


@pytest.mark.parametrize("compute", ["fp32", "int8"])
@pytest.mark.parametrize("op", ["linear", "encoder"])
def test_the_number_of_threads_does_not_change_a_bit(
    open_model: Any, linear: LinearModel, encoder: EncoderModel, op: str, compute: str
) -> None:
    model: LinearModel | EncoderModel = linear.use("bias", "gamma", "beta")
    feeds = {"X": values(300, COLUMNS)}
    if op == "encoder":
        model = encoder
        feeds = {"X": values(4, 90, HIDDEN), "mask": a_mask(4, 90)}
    model.attributes["compute"] = compute
    outputs = [open_model(model.serialised(), threads).run(None, feeds)[0] for threads in (1, 2, 3)]
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_array_equal(outputs[2], outputs[0])


@pytest.mark.parametrize("op", ["linear", "encoder"])
def test_runs_of_one_session_may_overlap(
    open_model: Any, linear: LinearModel, encoder: EncoderModel, op: str
) -> None:
    batches: list[dict[str, Array]]
    if op == "linear":
        batches = [{"X": values(7 * i, COLUMNS, seed=i)} for i in range(12)]
        model = linear.use("bias", "gamma", "beta").serialised()
    else:
        sizes = [(1 + i % 4, 3 + 7 * i) for i in range(12)]
        batches = [{"X": values(*size, HIDDEN), "mask": a_mask(*size)} for size in sizes]
        model = encoder.serialised()
    session = open_model(model, threads=2)
    serial = [session.run(None, feeds)[0] for feeds in batches]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            together = pool.map(lambda feeds: session.run(None, feeds)[0], batches)
            for expected, y in zip(serial, together, strict=True):
                np.testing.assert_array_equal(y, expected)


def test_sessions_may_be_opened_and_closed_side_by_side(
    open_model: Any, encoder: EncoderModel, engine: Any
) -> None:
    model = encoder.serialised()
    feeds = {"X": values(2, 9, HIDDEN), "mask": a_mask(2, 9)}
    expected = open_model(model).run(None, feeds)[0]

    def open_and_run(_: int) -> Array:
        report(engine)
        y: Array = open_model(model).run(None, feeds)[0]
        return y

    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(open_and_run, range(16)):
            np.testing.assert_array_equal(y, expected)


@pytest.fixture
def nothing_open(engine: Any) -> Iterator[None]:
    gc.collect()
    assert report(engine)["nodes"] == []
    yield
    gc.collect()


@pytest.mark.usefixtures("nothing_open")
def test_sessions_share_equal_weights(open_model: Any, encoder: EncoderModel, engine: Any) -> None:
    assert engine.smp_engine_products_held() == 0
    first = open_model(encoder.serialised())
    assert engine.smp_engine_products_held() == len(encoder.weights)
    second = open_model(encoder.serialised())
    assert engine.smp_engine_products_held() == len(encoder.weights)
    del first
    gc.collect()
    feeds = {"X": values(2, 9, HIDDEN), "mask": a_mask(2, 9)}
    expected = encoder.expected(feeds["X"], feeds["mask"])
    np.testing.assert_allclose(second.run(None, feeds)[0], expected, rtol=1e-4, atol=1e-4)
    del second
    gc.collect()
    assert engine.smp_engine_products_held() == 0


@pytest.mark.usefixtures("nothing_open")
def test_the_report_lists_live_nodes_and_times_them(
    open_model: Any, linear: LinearModel, encoder: EncoderModel, engine: Any
) -> None:
    sessions = [open_model(linear.serialised()), open_model(encoder.without_mask().serialised())]
    for _ in range(3):
        sessions[0].run(None, {"X": values(200, COLUMNS)})
        sessions[1].run(None, {"X": values(2, 50, HIDDEN)})
    content = report(engine)
    assert content["isa"] == engine.smp_engine_isa().decode()
    assert [(node["node"], node["op"]) for node in content["nodes"]] == [
        ("the_node", "SmpLinear"),
        ("the_node", "SmpEncoder"),
    ]
    assert len(content["nodes"][0]["plan"]) == 1
    for node in content["nodes"]:
        assert all({"name", "kernel", "density"} <= set(entry) for entry in node["plan"])
        assert sum(node["profile"].values()) > 0
    engine.smp_engine_reset_profile()
    assert all(sum(node["profile"].values()) == 0 for node in report(engine)["nodes"])
    sessions.clear()
    gc.collect()
    assert report(engine)["nodes"] == []


def test_the_instruction_set_is_logged_once(
    native_library: Path, linear: LinearModel, engine: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 1
    options.register_custom_ops_library(str(native_library))
    session = onnxruntime.InferenceSession(
        linear.serialised(), options, providers=["CPUExecutionProvider"]
    )
    capfd.readouterr()
    for _ in range(2):
        session.run(None, {"X": values(2, COLUMNS)})
    logged = capfd.readouterr().err
    isa = engine.smp_engine_isa().decode()
    assert logged.count(f"SmpLinear node 'the_node' uses the instruction set {isa}") == 1


def test_the_report_escapes_names(open_model: Any, linear: LinearModel, engine: Any) -> None:
    model = onnx.load_from_string(linear.serialised())
    model.graph.node[0].name = name = 'a "quoted"\\\n name é'
    session = open_model(model.SerializeToString())
    nodes = report(engine)["nodes"]
    assert [node["node"] for node in nodes] == [name]
    assert session is not None
