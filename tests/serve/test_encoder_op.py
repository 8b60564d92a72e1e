"""SmpEncoder inside ONNX Runtime: results, shapes and errors."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.serve.op_models import HIDDEN, EncoderModel, a_mask, infers_shapes, values

WriteBlob = Callable[..., bytes]


@pytest.mark.parametrize("tokens", ["all", "first"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (1, 7), (4, 5), (3, 70)])
def test_encoder_matches_the_reference(
    open_model: Any, encoder: EncoderModel, batch: int, sequence: int, masked: bool, tokens: str
) -> None:
    encoder.attributes["tokens"] = tokens
    feeds = {"X": values(batch, sequence, HIDDEN)}
    mask = None
    if masked:
        feeds["mask"] = mask = a_mask(batch, max(sequence, 2))[:, :sequence]
    else:
        encoder.without_mask()
    (y,) = open_model(encoder.serialised(), threads=2).run(None, feeds)
    assert y.shape == (batch, 1 if tokens == "first" else sequence, HIDDEN)
    np.testing.assert_allclose(y, encoder.expected(feeds["X"], mask), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", ["all", "first"])
def test_encoder_normalises_its_input_where_asked(
    open_model: Any, encoder: EncoderModel, tokens: str
) -> None:
    encoder.attributes["tokens"] = tokens
    encoder.with_input_norm()
    x, mask = 3 * values(3, 9, HIDDEN) + 1, a_mask(3, 9)
    (y,) = open_model(encoder.serialised()).run(None, {"X": x, "mask": mask})
    np.testing.assert_allclose(y, encoder.expected(x, mask), rtol=1e-4, atol=1e-4)


def test_encoder_in_int8_is_near(open_model: Any, encoder: EncoderModel) -> None:
    encoder.without_mask().attributes["compute"] = "int8"
    x = values(2, 40, HIDDEN)
    (y,) = open_model(encoder.serialised()).run(None, {"X": x})
    assert np.abs(y - encoder.expected(x)).mean() < 0.03


@pytest.mark.parametrize("compute", ["fp32", "int8"])
def test_what_is_masked_away_does_not_matter(
    open_model: Any, encoder: EncoderModel, compute: str
) -> None:
    encoder.attributes["compute"] = compute
    session = open_model(encoder.serialised())
    mask = a_mask(4, 9)
    x = values(4, 9, HIDDEN)
    (clean,) = session.run(None, {"X": x, "mask": mask})
    x[mask == 0] = np.nan
    (y,) = session.run(None, {"X": x, "mask": 7 * mask})  # any number but 0 is there
    np.testing.assert_array_equal(y, clean)
    assert not y[mask == 0].any()


def test_encoder_nan_stays_in_its_sequence(open_model: Any, encoder: EncoderModel) -> None:
    for compute in ("fp32", "int8"):
        encoder.without_mask().attributes["compute"] = compute
        session = open_model(encoder.serialised())
        x = values(3, 21, HIDDEN)
        (clean,) = session.run(None, {"X": x})
        x[1, 4, 2] = np.inf
        (y,) = session.run(None, {"X": x})
        np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])
        assert np.isnan(y[1]).all()


@pytest.mark.parametrize("tokens", ["all", "first"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_an_encoder_of_nothing_is_empty(
    open_model: Any, encoder: EncoderModel, shape: tuple[int, int], tokens: str
) -> None:
    encoder.attributes["tokens"] = tokens
    session = open_model(encoder.serialised())
    (y,) = session.run(None, {"X": values(*shape, HIDDEN), "mask": np.ones(shape, np.int64)})
    assert y.size == 0
    assert y.shape[0] == shape[0]
    assert y.shape[2] == HIDDEN


@infers_shapes
def test_encoder_infers_shapes(open_model: Any, encoder: EncoderModel) -> None:
    encoder.shapes.update(X=["batch", "sequence", HIDDEN], mask=["batch", "sequence"])
    session = open_model(encoder.serialised())
    assert session.get_outputs()[0].shape == ["batch", "sequence", HIDDEN]
    encoder.attributes["tokens"] = "first"
    session = open_model(encoder.without_mask().serialised())
    assert session.get_outputs()[0].shape == ["batch", 1, HIDDEN]


def break_encoder(name: str, encoder: EncoderModel, write_blob: WriteBlob) -> None:
    constants, attributes = encoder.constants, encoder.attributes
    if name == "an input missing":
        encoder.inputs.pop()
    elif name == "a layer too many":
        attributes["layers"] = 3
    elif name == "no layers":
        attributes["layers"] = 0
    elif name == "heads":
        attributes["heads"] = 3
    elif name == "tokens":
        attributes["tokens"] = "last"
    elif name == "swapped":
        constants["f1_w.1"], constants["f2_w.1"] = constants["f2_w.1"], constants["f1_w.1"]
    elif name == "floats for weights":
        constants["q_w.0"] = np.ones(9, np.float32)
    elif name == "bytes for a bias":
        constants["o_b.1"] = np.ones(HIDDEN, np.uint8)
    elif name == "corrupt":
        constants["v_w.1"] = constants["v_w.1"][:-3]
    elif name == "short norm":
        constants["ln2_beta.0"] = np.ones(2, np.float32)
    elif name == "scale":
        attributes["scale"] = math.inf


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("an input missing", r"has 33 inputs; 2 layer\(s\) need 34"),
        ("a layer too many", r"has 34 inputs; 3 layer\(s\) need 50"),
        ("no layers", "layers is 0; expected 1 to"),
        ("heads", "heads is 3, which does not divide hidden 16"),
        ("tokens", "tokens is 'last'; expected all or first"),
        ("swapped", "input f1_w of layer 1 is 16 x 24 .* say 24 x 16"),
        ("floats for weights", "input q_w of layer 0 must be a uint8 tensor"),
        ("bytes for a bias", "input o_b of layer 1 must be a float tensor"),
        ("corrupt", "input v_w of layer 1: truncated"),
        ("short norm", "input ln2_beta of layer 0 has 2 elements; expected 16"),
        ("scale", "scale is not finite"),
    ],
)
def test_a_broken_encoder_is_refused_when_the_session_is_opened(
    open_model: Any, encoder: EncoderModel, write_blob: WriteBlob, name: str, message: str
) -> None:
    break_encoder(name, encoder, write_blob)
    with pytest.raises(Exception, match=f"SmpEncoder node 'the_node': {message}"):
        open_model(encoder.serialised())


def test_a_weight_left_out_is_refused(open_model: Any, encoder: EncoderModel) -> None:
    encoder.inputs[2] = ""
    with pytest.raises(Exception, match="Input2 is absent, but not optional"):
        open_model(encoder.serialised())


@pytest.mark.parametrize(
    ("x_shape", "mask_shape", "message"),
    [
        ((3, HIDDEN), (3, 1), r"X has the shape \[3, 16\]; expected \[batch, sequence, 16\]"),
        ((1, 3, 15), (1, 3), r"X has the shape \[1, 3, 15\]"),
        ((2, 3, HIDDEN), (2, 4), r"mask has the shape \[2, 4\]; expected \[2, 3\]"),
        ((2, 3, HIDDEN), (2, 1, 1, 3), r"mask has the shape \[2, 1, 1, 3\]; expected \[2, 3\]"),
        ((2, 3, HIDDEN), (6,), r"mask has the shape \[6\]; expected \[2, 3\]"),
    ],
)
def test_wrong_shapes_of_an_encoder_end_that_run_alone(
    open_model: Any,
    encoder: EncoderModel,
    x_shape: tuple[int, ...],
    mask_shape: tuple[int, ...],
    message: str,
) -> None:
    session = open_model(encoder.serialised())
    with pytest.raises(Exception, match=f"the_node.*{message}"):
        session.run(None, {"X": values(*x_shape), "mask": np.ones(mask_shape, np.int64)})
    x = values(2, 3, HIDDEN)
    (y,) = session.run(None, {"X": x, "mask": np.ones((2, 3), np.int64)})
    np.testing.assert_allclose(y, encoder.expected(x), rtol=1e-4, atol=1e-4)
