from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.engine.blob import encode
from export.packed_graph import EncodeWeights
from export.sparse_initializers import to_sparse_initializers
from export.verify import check_graph, check_weights
from pipeline.artifacts.classifier import Head, TextClassifier, load_encoder
from pipeline.artifacts.run import HeadLayout
from pipeline.errors import ArtifactError, VerificationError

QUERY = "encoder.layer.0.attention.self.query.weight"


def model_with(weight: np.ndarray, path: Path, name: str = QUERY, operator: str = "MatMul") -> Path:
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", name], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", float32, ["n", weight.shape[0]])],
        [onnx.helper.make_tensor_value_info("y", float32, ["n", weight.shape[1]])],
        [onnx.numpy_helper.from_array(weight, name)],
    )
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


@pytest.fixture
def classifier(tiny_bert: Path) -> TextClassifier:
    layout = HeadLayout("linear", "mean", 32, 2)
    return TextClassifier(load_encoder(str(tiny_bert)), Head(layout), layout)


def test_every_weight_in_the_file_isjudged(classifier: TextClassifier, tmp_path: Path):
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    masks = {QUERY: np.ones(baked.shape, np.bool_)}
    for stored in (baked, baked.T):
        check_weights(model_with(stored, tmp_path / "m"), classifier, masks, "fp32")
    changed = baked.copy()
    changed[3, 4] += 1e-6
    with pytest.raises(VerificationError, match=f"{QUERY} in the graph are not the pruned"):
        check_weights(model_with(changed, tmp_path / "m"), classifier, masks, "fp32")


def test_a_weight_that_the_mask_removes_is_found(classifier: TextClassifier, tmp_path: Path):
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    mask = np.ones(baked.shape, np.bool_)
    mask[0, 0] = False
    with pytest.raises(VerificationError, match="its mask removes"):
        check_weights(model_with(baked, tmp_path / "m"), classifier, {QUERY: mask}, "fp32")


def test_a_weight_that_is_not_there_is_found(classifier: TextClassifier, tmp_path: Path):
    path = model_with(np.ones((32, 32), np.float32), tmp_path / "m", name="other")
    masks = {QUERY: np.ones((32, 32), np.bool_)}
    with pytest.raises(VerificationError, match=f"no weight {QUERY}"):
        check_weights(path, classifier, masks, "fp32")


def test_an_invalid_graph_is_refused(tmp_path: Path):
    path = model_with(np.ones((2, 2), np.float32), tmp_path / "m", operator="NoSuchOperator")
    with pytest.raises(VerificationError, match="ONNX checker"):
        check_graph(path)


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8"])
def test_weights_of_the_engine_are_decoded_and_compared(
    values, classifier: TextClassifier, tmp_path: Path
):
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    masks = {QUERY: np.ones(baked.shape, np.bool_)}
    path = model_with(np.ones((32, 32), np.float32), tmp_path / "m")
    model = onnx.load(path)

    def store(matrix: np.ndarray) -> None:
        blob = onnx.numpy_helper.from_array(encode(matrix, values), QUERY)
        model.graph.initializer[0].CopyFrom(blob)
        onnx.save(model, path)

    store(baked)
    check_weights(path, classifier, masks, values)
    changed = baked.copy()
    changed[3, 4] += 0.1
    store(changed)
    with pytest.raises(VerificationError, match="are not the pruned"):
        check_weights(path, classifier, masks, values)


def masked(classifier: TextClassifier, density: float) -> np.ndarray:
    """Put a random mask into the query matrix, and give it."""
    weight = classifier.encoder.get_parameter(QUERY)
    mask = np.random.default_rng(0).random(tuple(weight.shape)) < density
    weight.data.mul_(torch.from_numpy(mask))
    return mask


def encoded(matrix: np.ndarray, path: Path, form: str, values: str) -> Path:
    """An ONNX file with a matrix [out_features, in_features] as the export stores it."""
    model = ir.load(model_with(np.ascontiguousarray(matrix.T), path))
    encoding = EncodeWeights([QUERY], values, packed=form == "packed")
    encoding(model)
    proto = ir.to_proto(model)
    if form == "sparse":
        to_sparse_initializers(proto, encoding.stored)
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("form", ["dense", "sparse", "packed"])
@pytest.mark.parametrize("density", [0.05, 0.5])
def test_every_encoding_is_decoded_and_compared(
    density, form, values, classifier: TextClassifier, tmp_path: Path
):
    masks = {QUERY: masked(classifier, density)}
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    path = encoded(baked, tmp_path / "m", form, values)
    check_graph(path)
    check_weights(path, classifier, masks, values)
    changed = baked.copy()
    changed[np.unravel_index(np.argmax(np.abs(baked)), baked.shape)] *= 1.1
    with pytest.raises(VerificationError, match="are not the pruned"):
        check_weights(encoded(changed, path, form, values), classifier, masks, values)


@pytest.mark.parametrize("values", ["fp32", "int8"])
def test_a_matrix_of_which_rows_and_columns_are_left_is_compared_with_those(
    values, classifier: TextClassifier, tmp_path: Path
):
    masks = {QUERY: masked(classifier, 0.2)}
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    rows, columns = np.arange(0, 32, 2), np.array([0, 1, 5, 31])
    for left, (kept_rows, kept_columns) in (
        (baked[rows], (rows, None)),
        (baked[:, columns], (None, columns)),
        (baked[np.ix_(rows, columns)], (rows, columns)),
    ):
        path = encoded(left, tmp_path / "m", "packed", values)
        check_weights(path, classifier, masks, values, {QUERY: (kept_rows, kept_columns)})
        for wrong in ({}, {QUERY: (rows + 1, kept_columns)}):
            with pytest.raises(VerificationError, match="are not the pruned"):
                check_weights(path, classifier, masks, values, wrong)


def test_a_matrix_of_which_nothing_is_left_need_not_be_there(
    classifier: TextClassifier, tmp_path: Path
):
    path = model_with(np.ones((2, 2), np.float32), tmp_path / "m", name="other")
    masks = {QUERY: np.ones((32, 32), np.bool_)}
    check_weights(path, classifier, masks, "fp32", {QUERY: (np.array([], np.int64), None)})


@pytest.mark.parametrize("values", ["fp16", "int8"])
@pytest.mark.parametrize("density", [0.001, 0.05, 0.5])
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_packed_tensors_that_were_changed_or_cut_are_found(
    density, values, data, classifier: TextClassifier, tmp_path: Path
):
    masks = {QUERY: masked(classifier, density)}
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    path = encoded(baked, tmp_path / "m", "packed", values)
    model = onnx.load(path)
    streams = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name.startswith(QUERY) and tensor.raw_data and not tensor.name.endswith("count")
    ]
    tensor = data.draw(st.sampled_from(streams))
    octets = bytearray(tensor.raw_data)
    if data.draw(st.booleans()):
        octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
        tensor.raw_data = bytes(octets)
    else:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array[..., :-1], tensor.name))
    onnx.save(model, path)
    try:
        check_weights(path, classifier, masks, values)
    except VerificationError as error:
        assert "\n" not in str(error)
    else:  # what changed were bits that stand for nothing
        changed = onnx.numpy_helper.to_array(tensor)
        assert tensor.name.endswith((".remainders", ".bits", ".scales", ".values")), changed


@pytest.mark.parametrize("left", [10, -10])
def test_a_file_that_is_cut_short_is_refused(left, classifier: TextClassifier, tmp_path: Path):
    masks = {QUERY: masked(classifier, 0.1)}
    baked = classifier.encoder.get_parameter(QUERY).detach().numpy()
    path = encoded(baked, tmp_path / "m", "packed", "fp16")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises((ArtifactError, VerificationError)):
        check_weights(path, classifier, masks, "fp16")


def test_a_graph_with_sparse_initializers_is_checked_with_its_types(tmp_path: Path):
    path = encoded(np.eye(32, dtype=np.float32), tmp_path / "m", "sparse", "fp32")
    check_graph(path)
    model = onnx.load(path)
    model.graph.sparse_initializer[0].dims[:] = [31, 32]
    onnx.save(model, path)
    with pytest.raises(VerificationError, match="ONNX checker"):
        check_graph(path)
