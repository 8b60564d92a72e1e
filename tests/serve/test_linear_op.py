"""SmpLinear inside ONNX Runtime: results, shapes and errors."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.serve.op_models import (
    ACTIVATIONS,
    COLUMNS,
    LINEAR_INPUTS,
    ROWS,
    LinearModel,
    as_blob,
    infers_shapes,
    values,
)

Array = NDArray[Any]
WriteBlob = Callable[..., bytes]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (1, 2, 65), (2, 1, 3, 2)])
def test_linear_takes_any_rank(
    open_model: Any, linear: LinearModel, matrix: Array, shape: tuple[int, ...]
) -> None:
    x = values(*shape, COLUMNS)
    (y,) = open_model(linear.serialised()).run(None, {"X": x})
    assert y.shape == (*shape, ROWS)
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compute", ["fp32", "int8"])
@pytest.mark.parametrize(
    "optional",
    [
        *[(), ("bias",), ("residual",), ("gamma", "beta"), ("bias", "residual")],
        *[("bias", "gamma", "beta"), ("residual", "gamma", "beta"), LINEAR_INPUTS[2:]],
    ],
    ids=lambda names: "+".join(names) or "none",
)
def test_linear_optional_inputs(
    open_model: Any, linear: LinearModel, matrix: Array, optional: tuple[str, ...], compute: str
) -> None:
    linear.use(*optional).attributes.update(activation="gelu", compute=compute)
    feeds = {"X": values(33, COLUMNS)}
    if "residual" in optional:
        feeds["residual"] = values(33, ROWS, seed=6)
    (y,) = open_model(linear.serialised()).run(None, feeds)
    expected = linear.expected(matrix, feeds["X"], feeds.get("residual"))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 if compute == "fp32" else 0.1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_activations(
    open_model: Any, linear: LinearModel, matrix: Array, activation: str
) -> None:
    linear.use("bias").attributes["activation"] = activation
    x = 4 * values(40, COLUMNS)
    (y,) = open_model(linear.serialised()).run(None, {"X": x})
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (2, 0), (2, 0, 3)])
def test_linear_of_nothing_is_empty(
    open_model: Any, linear: LinearModel, shape: tuple[int, ...]
) -> None:
    session = open_model(linear.use("residual").serialised())
    feeds = {"X": values(*shape, COLUMNS), "residual": values(*shape, ROWS)}
    assert session.run(None, feeds)[0].shape == (*shape, ROWS)


def test_linear_nan_and_infinity_stay_in_their_token(open_model: Any, linear: LinearModel) -> None:
    for compute in ("fp32", "int8"):
        linear.use("bias", "gamma", "beta").attributes["compute"] = compute
        session = open_model(linear.serialised())
        x = values(20, COLUMNS)
        (clean,) = session.run(None, {"X": x})
        x[3, 4], x[10, 0], x[17, 19] = np.nan, np.inf, -np.inf
        (y,) = session.run(None, {"X": x})
        bad = [3, 10, 17]
        assert np.isnan(y[bad]).all()
        np.testing.assert_array_equal(np.delete(y, bad, 0), np.delete(clean, bad, 0))


@infers_shapes
def test_linear_infers_shapes_with_their_names(open_model: Any, linear: LinearModel) -> None:
    linear.shapes["X"] = ["batch", 5, COLUMNS]
    assert open_model(linear.serialised()).get_outputs()[0].shape == ["batch", 5, ROWS]
    linear.shapes["X"] = ["batch", "sequence", "features"]
    assert open_model(linear.serialised()).get_outputs()[0].shape == ["batch", "sequence", ROWS]


@infers_shapes
def test_linear_shape_inference_stands_optional_inputs_left_out(
    open_model: Any, linear: LinearModel, matrix: Array
) -> None:
    linear.use("gamma", "beta").shapes["X"] = ["batch", COLUMNS]
    session = open_model(linear.serialised())
    assert session.get_outputs()[0].shape == ["batch", ROWS]
    x = values(3, COLUMNS)
    (y,) = session.run(None, {"X": x})
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


def test_a_graph_of_constants_alone_works(
    open_model: Any, linear: LinearModel, matrix: Array
) -> None:
    x = values(4, COLUMNS)
    linear.constants["X"] = x
    (y,) = open_model(linear.serialised()).run(None, {})
    np.testing.assert_allclose(y, linear.expected(matrix, x), rtol=1e-5, atol=1e-5)


def break_linear(name: str, linear: LinearModel, write_blob: WriteBlob) -> None:
    constants, attributes = linear.constants, linear.attributes
    blob = constants["W"].tobytes()
    if name == "truncated":
        constants["W"] = as_blob(blob[:-1])
    elif name == "not weights":
        constants["W"] = np.zeros(100, np.uint8)
    elif name == "no bytes":
        constants["W"] = np.zeros(0, np.uint8)
    elif name == "W of two dimensions":
        constants["W"] = as_blob(blob)[None]
    elif name == "W fed":
        del constants["W"]
    elif name == "bias fed":
        del constants["bias"]
    elif name == "bias too short":
        constants["bias"] = constants["bias"][1:]
    elif name == "bias of two dimensions":
        constants["bias"] = constants["bias"][None]
    elif name == "gamma too long":
        constants["gamma"] = np.ones(ROWS + 1, np.float32)
    elif name == "gamma alone":
        linear.use("bias", "gamma")
    elif name == "other attributes":
        attributes.update(in_features=ROWS, out_features=COLUMNS)
    elif name == "huge":
        attributes["out_features"] = 2**62
    elif name == "negative":
        attributes["in_features"] = -COLUMNS
    elif name == "no out_features":
        del attributes["out_features"]
    elif name == "in_features a text":
        attributes["in_features"] = "20"
    elif name == "activation":
        attributes["activation"] = "sigmoid"
    elif name == "compute":
        attributes["compute"] = "int4"
    elif name == "epsilon":
        attributes["epsilon"] = math.nan


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", "input W: truncated: the values need"),
        ("not weights", "input W: they do not start with the mark SMPW"),
        ("no bytes", "input W: 0 bytes are fewer than the header's 32"),
        ("W of two dimensions", r"input W must be a uint8 tensor with 1 dimension\(s\)"),
        ("W fed", "input W must be a constant initializer"),
        ("bias fed", "input bias must be a constant initializer"),
        ("bias too short", "input bias has 8 elements; expected 9"),
        ("bias of two dimensions", r"input bias must be a float tensor .* its shape is \[1, 9\]"),
        ("gamma too long", "input gamma has 10 elements; expected 9"),
        ("gamma alone", "gamma and beta go together"),
        ("other attributes", r"input W is 9 x 20 .* attributes say 20 x 9"),
        ("huge", "out_features is 4611686018427387904; expected 1 to"),
        ("negative", "in_features is -20; expected 1 to"),
        ("no out_features", r"needs the attribute out_features \(int\)"),
        ("in_features a text", r"needs the attribute in_features \(int\)"),
        ("activation", "activation is 'sigmoid'; expected none, gelu"),
        ("compute", "compute is 'int4'; expected fp32 or int8"),
        ("epsilon", "epsilon is not finite"),
    ],
)
def test_a_broken_linear_is_refused_when_the_session_is_opened(
    open_model: Any, linear: LinearModel, write_blob: WriteBlob, name: str, message: str
) -> None:
    linear.use("bias", "gamma", "beta")
    break_linear(name, linear, write_blob)
    with pytest.raises(Exception, match=f"SmpLinear node 'the_node': {message}"):
        open_model(linear.serialised())


def test_a_known_wrong_number_of_features_is_refused(open_model: Any, linear: LinearModel) -> None:
    linear.shapes["X"] = ["batch", COLUMNS + 1]
    # Not earlier: ONNX Runtime drops the errors of shape inference.
    with pytest.raises(Exception, match=r"X has the shape \[4, 21\]; expected \[..., 20\]"):
        open_model(linear.serialised()).run(None, {"X": values(4, COLUMNS + 1)})


@pytest.mark.parametrize(
    ("x_shape", "residual_shape", "message"),
    [
        ((), (ROWS,), r"X has the shape \[\]; expected \[..., 20\]"),
        ((4, 19), (4, ROWS), r"X has the shape \[4, 19\]; expected \[..., 20\]"),
        ((COLUMNS, 4), (COLUMNS, ROWS), r"X has the shape \[20, 4\]; expected \[..., 20\]"),
        ((4, 0), (4, ROWS), r"X has the shape \[4, 0\]; expected \[..., 20\]"),
        ((4, COLUMNS), (3, ROWS), r"residual has the shape \[3, 9\]; expected \[4, 9\]"),
        ((4, COLUMNS), (1, 4, ROWS), r"residual has the shape \[1, 4, 9\]; expected \[4, 9\]"),
        ((4, COLUMNS), (ROWS,), r"residual has the shape \[9\]; expected \[4, 9\]"),
    ],
)
def test_wrong_shapes_end_that_run_alone(
    open_model: Any,
    linear: LinearModel,
    matrix: Array,
    x_shape: tuple[int, ...],
    residual_shape: tuple[int, ...],
    message: str,
) -> None:
    session = open_model(linear.use("residual").serialised())
    wrong = {"X": values(*x_shape), "residual": values(*residual_shape)}
    with pytest.raises(Exception, match=f"the_node.*{message}"):
        session.run(None, wrong)
    right = {"X": values(4, COLUMNS), "residual": values(4, ROWS)}
    (y,) = session.run(None, right)
    expected = linear.expected(matrix, right["X"], right["residual"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
