from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.sparse_initializers import (
    declare_as_inputs,
    to_dense_initializers,
    to_sparse_initializers,
)
from pipeline.errors import ArtifactError

FLOAT = onnx.TensorProto.FLOAT


def model_of(matrices: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A Cast for every matrix."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", [name], [f"y_{name}"], to=FLOAT) for name in matrices],
        "g",
        [],
        [
            onnx.helper.make_tensor_value_info(f"y_{name}", FLOAT, matrix.shape)
            for name, matrix in matrices.items()
        ],
        [onnx.numpy_helper.from_array(matrix, name) for name, matrix in matrices.items()],
    )
    opset = onnx.helper.make_opsetid("", 20)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)


@st.composite
def sparse_matrices(draw: st.DrawFn) -> np.ndarray:
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=30))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.03, 0.2, 0.4, 1.0]))
    matrix = generator.integers(-9, 9, shape) * (generator.random(shape) < density)
    return matrix.astype(draw(st.sampled_from([np.float32, np.float16, np.int8])))


@given(sparse_matrices())
def test_matrices_come_back_and_the_file_never_grows(matrix):
    model = model_of({"w": matrix})
    before = onnx.ModelProto.FromString(model.SerializeToString())
    encodings = to_sparse_initializers(model, {"weight": "w"})
    onnx.checker.check_model(model)
    count = np.count_nonzero(matrix)
    smaller = count * (8 + matrix.itemsize) < matrix.size * matrix.itemsize
    assert encodings == {"weight": "sparse" if smaller else "dense"}
    assert len(model.graph.sparse_initializer) == smaller
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {})[0], matrix.astype(np.float32))
    to_dense_initializers(model)
    assert model.graph.initializer == before.graph.initializer


def test_what_is_not_named_stays_and_the_order_too():
    matrices = {name: np.eye(16, dtype=np.float32) for name in "abcd"}
    model = model_of(matrices)
    assert to_sparse_initializers(model, {"d": "d", "b": "b"}) == {"d": "sparse", "b": "sparse"}
    assert [tensor.name for tensor in model.graph.initializer] == ["a", "c"]
    assert [tensor.values.name for tensor in model.graph.sparse_initializer] == ["b", "d"]


def test_positions_are_linear_and_int64():
    model = model_of({"w": np.array([[0, 0, 5, 0, 0, 0], [0, 7, 0, 0, 0, 0]], np.float32)})
    to_sparse_initializers(model, {"w": "w"})
    (sparse,) = model.graph.sparse_initializer
    positions = onnx.numpy_helper.to_array(sparse.indices)
    assert positions.dtype == np.int64
    assert positions.tolist() == [2, 7]
    assert list(sparse.dims) == [2, 6]


def test_types_can_be_inferred_where_they_stand_as_inputs():
    model = model_of({"w": np.eye(16, dtype=np.float16)})
    to_sparse_initializers(model, {"w": "w"})
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    declare_as_inputs(model)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@pytest.mark.parametrize(
    "positions",
    [[3, 1], [1, 1], [-1, 1], [1, 256], [1], [1, 2, 3]],
    ids=["unsorted", "twice", "negative", "outside", "few", "many"],
)
def test_positions_that_do_not_fit_are_refused(positions: list[int], tmp_path: Path):
    matrix = np.zeros((16, 16), np.float32)
    matrix[0, :2] = 1.0
    model = model_of({"w": matrix})
    to_sparse_initializers(model, {"w": "w"})
    (sparse,) = model.graph.sparse_initializer
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.array(positions, np.int64)))
    with pytest.raises(ArtifactError, match="sparse initializer w is corrupt"):
        to_dense_initializers(model)


def test_tensors_that_are_cut_short_and_shapes_beyond_memory_are_refused():
    model = model_of({"w": np.eye(16, dtype=np.float32)})
    to_sparse_initializers(model, {"w": "w"})
    (sparse,) = model.graph.sparse_initializer
    whole = sparse.values.raw_data
    sparse.values.raw_data = whole[:-2]
    with pytest.raises(ArtifactError, match="corrupt"):
        to_dense_initializers(model)
    sparse.values.raw_data = whole
    for dims in ([2**40, 2**40], [2**16, 2**16], [-1, -1], [-16, -16], [3, -2, -1]):
        sparse.dims[:] = dims
        with pytest.raises(ArtifactError, match="corrupt"):
            to_dense_initializers(model)


@pytest.mark.parametrize("part", ["values", "indices"])
def test_data_in_other_files_are_not_read(part, tmp_path, monkeypatch):
    model = model_of({"w": np.eye(16, dtype=np.float32)})
    to_sparse_initializers(model, {"w": "w"})
    tensor = getattr(model.graph.sparse_initializer[0], part)
    (tmp_path / "weights").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="must be in the file itself"):
        to_dense_initializers(model)
