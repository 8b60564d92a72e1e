"""Files of one part and of two: the same model, the same bytes, and nothing from elsewhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export import graph_file
from export.graph_file import read_graph, write_graph
from pipeline.errors import ArtifactError, ModelError

# The graph below is larger, its sparse tensor smaller.
LIMIT = 4000


def small_graph(seed: int = 0, columns: int = 300) -> onnx.ModelProto:
    """``y = x @ w + b + sparse``; ``w`` takes 1,200 bytes a row, ``b`` stays inside any file."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((8, columns)).astype(np.float32)
    half = generator.standard_normal((5, columns)).astype(np.float16)
    bias = np.float32(0.5)
    indices = np.array([3, 7], np.int64)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([2, -4], np.float32), "sparse"),
        numpy_helper.from_array(indices),
        [columns],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["biased"]),
        helper.make_node("Cast", ["half"], ["halves"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["halves", "axes"], ["sums"], keepdims=0),
        helper.make_node("Add", ["biased", "sums"], ["summed"]),
        helper.make_node("Add", ["summed", "sparse"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [
            numpy_helper.from_array(weight, "w"),
            # Data outside of raw_data, as some exporters write them.
            helper.make_tensor("b", TensorProto.FLOAT, [1], [bias]),
            helper.make_tensor("half", TensorProto.FLOAT16, half.shape, half.reshape(-1).tolist()),
            numpy_helper.from_array(np.array([0], np.int64), "axes"),
        ],
        sparse_initializer=[sparse],
        doc_string="what it is",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests"
    )
    helper.set_model_props(model, {"a": "1", "b": "2"})
    return model


def run(path: Path, columns: int = 300) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    (y,) = session.run(None, {"x": x})
    assert y.shape == (2, columns)
    return y


@pytest.fixture
def lowered_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_file, "_LARGEST_FILE_BYTES", LIMIT)


@pytest.mark.usefixtures("lowered_limit")
def test_a_model_over_the_limit_becomes_two_files_of_the_same_model(tmp_path: Path) -> None:
    model = small_graph()
    path = tmp_path / "model.onnx"
    assert write_graph(model, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert path.stat().st_size < LIMIT
    onnx.checker.check_model(str(path))
    back = read_graph(path)
    assert back.producer_name == "tests"
    assert back.graph.doc_string == "what it is"
    for field in ("ir_version", "opset_import", "metadata_props"):
        assert getattr(back, field) == getattr(model, field)
    for field in ("node", "input", "output", "sparse_initializer"):
        assert getattr(back.graph, field) == getattr(model.graph, field)
    assert [tensor.name for tensor in back.graph.initializer] == ["w", "b", "half", "axes"]
    for found, expected in zip(back.graph.initializer, model.graph.initializer, strict=True):
        array = numpy_helper.to_array(expected)
        assert numpy_helper.to_array(found).dtype == array.dtype
        np.testing.assert_array_equal(numpy_helper.to_array(found), array)


def test_onnxruntime_computes_the_same_from_one_file_and_from_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_graph()
    (tmp_path / "two").mkdir()
    one, two = tmp_path / "model.onnx", tmp_path / "two" / "model.onnx"
    assert not write_graph(model, one)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["model.onnx"]
    monkeypatch.setattr(graph_file, "_LARGEST_FILE_BYTES", LIMIT)
    assert write_graph(model, two)
    np.testing.assert_array_equal(run(one), run(two))
    moved = (tmp_path / "two").rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(run(one), run(moved / "model.onnx"))


@pytest.mark.usefixtures("lowered_limit")
def test_weights_start_at_pages_and_small_tensors_stay_inside(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_graph(small_graph(), path)
    stored = onnx.load(path, load_external_data=False).graph.initializer
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in stored
    }
    assert places["b"] == places["axes"] == {}
    assert places["w"] == {"location": "model.onnx.data", "offset": "0", "length": "9600"}
    assert places["half"] == {"location": "model.onnx.data", "offset": "12288", "length": "3000"}
    data = (tmp_path / "model.onnx.data").read_bytes()
    assert len(data) == 12288 + 3000
    assert not any(data[9600:12288])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(10, 700), limit=st.integers(300, 9000))
def test_the_same_model_gives_the_same_bytes_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, columns: int, limit: int
) -> None:
    directories = [tmp_path_factory.mktemp("written") for _ in range(2)]
    model = small_graph(seed, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_file, "_LARGEST_FILE_BYTES", limit)
        written = [write_graph(model, directory / "model.onnx") for directory in directories]
    first, second = (
        {file.name: file.read_bytes() for file in directory.iterdir()} for directory in directories
    )
    assert first == second
    assert written == [len(first) == 2] * 2
    assert model == small_graph(seed, columns)  # what is written stays as it was
    back = read_graph(directories[0] / "model.onnx")
    for found, expected in zip(back.graph.initializer, model.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(expected))


def test_sparse_tensors_that_need_a_second_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_file, "_LARGEST_FILE_BYTES", 10)
    with pytest.raises(ModelError, match=r"GiB of sparse tensors.*use --format packed"):
        write_graph(small_graph(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def change_place(path: Path, **changes: str) -> None:
    """Let the first weight of a file lie elsewhere."""
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    places = {entry.key: entry.value for entry in tensor.external_data} | changes
    del tensor.external_data[:]
    for key, value in places.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def leave(path: Path) -> None:
    change_place(path, location="../outside")


def leave_by_a_detour(path: Path) -> None:
    change_place(path, location="inner/../../outside")


def leave_by_a_link(path: Path) -> None:
    path.with_name("link").symlink_to(path.parent.parent / "outside")
    change_place(path, location="link")


def start_at_the_root(path: Path) -> None:
    change_place(path, location=str((path.parent.parent / "outside").resolve()))


def lose_the_data(path: Path) -> None:
    path.with_name("model.onnx.data").unlink()


def cut_the_data(path: Path) -> None:
    data = path.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:5000])


def claim_more(path: Path) -> None:
    change_place(path, length="99999999999")


def claim_less(path: Path) -> None:
    change_place(path, length="400")


def start_before_the_file(path: Path) -> None:
    change_place(path, offset="-4")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (leave, "outside the directory"),
        (leave_by_a_detour, "outside the directory"),
        (leave_by_a_link, "link"),
        (start_at_the_root, "absolute path"),
        (lose_the_data, r"model\.onnx\.data"),
        (cut_the_data, "5000"),
        (claim_more, "99999999999"),
        (claim_less, r"w of shape \[8, 300\] takes 9600 bytes, got 400"),
        (start_before_the_file, "-4"),
    ],
)
@pytest.mark.usefixtures("lowered_limit")
def test_weights_elsewhere_or_of_another_size_are_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    (tmp_path / "outside").write_bytes(bytes(20_000))
    (tmp_path / "given" / "inner").mkdir(parents=True)
    path = tmp_path / "given" / "model.onnx"
    write_graph(small_graph(), path)
    damage(path)
    with pytest.raises(ArtifactError, match=reason) as caught:
        read_graph(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.STRING, 99])
def test_a_tensor_whose_bytes_do_not_fit_its_type_is_refused(tmp_path: Path, dtype: int) -> None:
    model = small_graph()
    model.graph.initializer[0].data_type = dtype
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"is damaged: w of shape \[8, 300\]"):
        read_graph(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"no graph"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx is no ONNX file"):
        read_graph(path)
    with pytest.raises(ArtifactError, match="is missing"):
        read_graph(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match="is a directory"):
        read_graph(tmp_path)
