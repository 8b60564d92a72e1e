"""The walk over ONNX files, against the onnx package."""

import contextlib
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import ArtifactError
from serve.onnx_initializers import Consumer, read_initializers

TYPES = ("float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool")
NAMES = st.sampled_from(["a", "b", "weight", "Ω", "x" * 200, ""])
ARRAYS = st.builds(
    lambda dims, kind: np.arange(math.prod(dims), dtype=np.int64).reshape(dims).astype(kind),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from(TYPES),
)
NODES = st.builds(
    lambda op_type, domain, inputs: helper.make_node(op_type, inputs, ["y"], domain=domain),
    st.sampled_from(["Gather", "Add", "SmpEncoder"]),
    st.sampled_from(["", "smp", "ai.onnx"]),
    st.lists(NAMES, max_size=4),
)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    arrays = draw(st.dictionaries(NAMES, ARRAYS, max_size=4))
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    if tensors and draw(st.booleans()):
        tensors.append(helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0]))
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in draw(st.lists(NAMES, max_size=2))
    ]
    graph = helper.make_graph(draw(st.lists(NODES, max_size=4)), "g", declared, [], tensors)
    return helper.make_model(graph)


def write(directory: Path, content: bytes) -> Path:
    path = directory / "model.onnx"
    path.write_bytes(content)
    return path


@given(models())
@settings(deadline=None)
def test_what_is_found_is_what_the_onnx_package_reads(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto
) -> None:
    content = model.SerializeToString()
    found = read_initializers(write(tmp_path_factory.mktemp("models"), content))
    declared = {entry.name for entry in model.graph.input}
    expected = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.HasField("raw_data") and tensor.name not in declared
    }
    assert {entry.name for entry in found} == set(expected)
    for entry in found:
        array = expected[entry.name]
        assert (entry.dims, entry.element_type) == (array.shape, array.dtype.name)
        assert entry.file is None
        assert content[entry.offset : entry.offset + entry.size_bytes] == array.tobytes()
        assert list(entry.consumers) == [
            Consumer("" if node.domain == "ai.onnx" else node.domain, node.op_type, index)
            for node in model.graph.node
            for index, name in enumerate(node.input)
            if name == entry.name
        ]


@given(models(), st.data())
@settings(deadline=None)
def test_damaged_files_are_refused_or_read_within_their_bounds(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto, data: st.DataObject
) -> None:
    content = bytearray(model.SerializeToString())
    del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path_factory.mktemp("models"), bytes(content))
    try:
        found = read_initializers(path)
    except ArtifactError as error:
        assert str(path) in str(error)
        return
    for entry in found:
        if entry.file is None:
            assert 0 < entry.offset <= entry.offset + entry.size_bytes <= len(content)
        size = np.dtype(entry.element_type).itemsize
        assert entry.size_bytes == math.prod(entry.dims) * size


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_refused_or_have_no_weights(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    with contextlib.suppress(ArtifactError):
        read_initializers(write(tmp_path_factory.mktemp("bytes"), content))


def graph_with(tensor: TensorProto, *nodes: onnx.NodeProto) -> bytes:
    content: bytes = helper.make_model(
        helper.make_graph(list(nodes), "g", [], [], [tensor])
    ).SerializeToString()
    return content


def test_small_ones_are_left_out(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(8, np.float32), "w")
    path = write(tmp_path, graph_with(tensor))
    assert [entry.name for entry in read_initializers(path, min_bytes=32)] == ["w"]
    assert read_initializers(path, min_bytes=33) == []


def test_nothing_is_said_of_a_graph_with_subgraphs(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(8, np.float32), "w")
    body = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "body", [], [])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    assert read_initializers(write(tmp_path, graph_with(tensor, branch))) == []


def test_weights_in_a_second_file_are_found_where_they_lie(tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [],
            "g",
            [],
            [],
            [
                numpy_helper.from_array(np.full(300, number, np.float32), f"w{number}")
                for number in range(3)
            ],
        )
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    data = (tmp_path / "weights").read_bytes()
    for number, entry in enumerate(read_initializers(path)):
        assert (entry.name, entry.file) == (f"w{number}", "weights")
        stored = np.frombuffer(data, np.float32, 300, entry.offset)
        np.testing.assert_array_equal(stored, np.full(300, number, np.float32))


def test_a_shape_that_does_not_fit_its_bytes_is_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(8, np.float32), "w")
    tensor.dims[0] = 9
    with pytest.raises(ArtifactError, match=r"w has 32 bytes, its shape \[9\] needs 36"):
        read_initializers(write(tmp_path, graph_with(tensor)))


def test_a_shape_without_end_is_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    tensor.dims.extend([2**62] * 100_000)
    with pytest.raises(ArtifactError, match="w has more than 64 dimensions"):
        read_initializers(write(tmp_path, graph_with(tensor)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no graph"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "bytes are announced where 0 are left"),
        (b"\x3a\x80", "a number does not end"),
        (b"\x3a" + b"\xff" * 10, "a number does not end"),
        (b"\x3b", "there is no wire type 3"),
        (b"\x02\x00", "there is no field 0"),
        (b"\x38\x01", "field 7 is no message"),
        (b"\x3a\x06\x2a\x04\x42\x02\xff\xff", "a name is no text"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_initializers(write(tmp_path, content))
