"""A model repository for Triton: what it holds, and that it does what the engine export does."""

import contextlib
import dataclasses
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import deserialize_bytes_tensor

from export import convert_file, export_run
from export.triton import lay_out
from pipeline import native
from pipeline.artifacts.exported import read_exported
from pipeline.artifacts.triton import read_triton
from pipeline.config import ExportConfig
from pipeline.errors import ArtifactError, ConfigurationError, MachineError, VerificationError
from pipeline.info import describe, print_description
from serve import open_session
from tests.export.triton_server import Triton, read_config

pytestmark = pytest.mark.usefixtures("native_library", "traced_once")

MakeModel = Callable[..., Path]

TEXTS = ["a good film", "the plot was dull and poor", "", "good " * 100]


@pytest.fixture(scope="module")
def engine(random_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the tiny BERT, exported in the format engine."""
    directory = tmp_path_factory.mktemp("engine") / "model"
    export_run(ExportConfig(run=random_run, output_dir=directory, format="engine"))
    return directory


@pytest.fixture(scope="module")
def repository(random_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as a model repository, which the server sees where it lies."""
    directory = tmp_path_factory.mktemp("triton") / "reviews"
    export_run(
        ExportConfig(
            run=random_run, output_dir=directory, format="triton", triton_repository=str(directory)
        )
    )
    return directory


def make_repository(make_model: MakeModel, directory: Path, **options: object) -> Path:
    make_model(directory, **options)
    lay_out(directory, read_exported(directory), name="m", repository=str(directory))
    return directory


def test_it_holds_what_triton_and_clients_read(repository: Path, engine: Path) -> None:
    for_clients = {path.name for path in engine.iterdir()} - {"model.onnx"}
    found = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    assert found == for_clients | {
        "reviews/1/libsmp_engine.so",
        "reviews/1/model.onnx",
        "reviews/config.pbtxt",
        "reviews/labels.txt",
        "reviews_text/1/model.py",
        "reviews_text/1/settings.json",
        "reviews_text/1/tokenizer.json",
        "reviews_text/config.pbtxt",
    }
    assert (repository / "reviews/1/model.onnx").read_bytes() == (
        engine / "model.onnx"
    ).read_bytes()


def test_the_manifest_has_that_of_the_engine_export(repository: Path, engine: Path) -> None:
    described = read_triton(repository)
    assert described.model == read_exported(engine)
    assert (described.model_name, described.text_model_name) == ("reviews", "reviews_text")


def test_the_configuration_declares_what_the_graph_has(repository: Path) -> None:
    config = read_config(repository / "reviews")
    graph = onnx.load(repository / "reviews/1/model.onnx").graph
    kinds = {
        onnx.TensorProto.INT64: model_config_pb2.TYPE_INT64,
        onnx.TensorProto.FLOAT: model_config_pb2.TYPE_FP32,
    }
    for declared, values in ((config.input, graph.input), (config.output, graph.output)):
        expected = []
        for value in values:
            batch, *others = value.type.tensor_type.shape.dim
            assert batch.dim_param
            dims = [-1 if dim.dim_param else dim.dim_value for dim in others]
            expected.append((value.name, kinds[value.type.tensor_type.elem_type], dims))
        assert [(each.name, each.data_type, list(each.dims)) for each in declared] == expected
    assert (config.backend, config.HasField("dynamic_batching")) == ("onnxruntime", True)
    assert [group.kind for group in config.instance_group] == [
        model_config_pb2.ModelInstanceGroup.KIND_CPU
    ]
    assert config.parameters["intra_op_thread_count"].string_value == "0"


def test_both_models_take_batches_of_one_size(repository: Path) -> None:
    sizes = {read_config(repository / name).max_batch_size for name in ("reviews", "reviews_text")}
    assert len(sizes) == 1
    assert min(sizes) > 1


def test_the_library_is_ours_at_the_path_that_the_configuration_names(repository: Path) -> None:
    (path,) = read_config(repository / "reviews").model_operations.op_library_filename
    assert Path(path).read_bytes() == native.library_path().read_bytes()
    assert read_triton(repository).library == path


def test_tokens_give_the_logits_of_the_engine_export(repository: Path, engine: Path) -> None:
    session = open_session(engine, threads=1)
    inputs = session.collate(session.encode(TEXTS))
    expected = session.run(inputs)
    longest = session.manifest.task.max_length
    padded = {
        name: np.pad(
            values,
            ((0, 0), (0, longest - values.shape[1])),
            constant_values=session.manifest.pad_token_id if name == "input_ids" else 0,
        )
        for name, values in inputs.items()
    }
    triton = Triton(repository)
    for given_inputs in (inputs, padded):
        found = triton.infer("reviews", given_inputs)["logits"]
        np.testing.assert_array_equal(found, expected)


def test_texts_give_the_labels_and_logits_of_the_engine_export(
    repository: Path, engine: Path
) -> None:
    session = open_session(engine, threads=1)
    expected = session.logits(TEXTS)
    texts = np.array([[text.encode()] for text in TEXTS], dtype=np.object_)
    answer = Triton(repository).infer("reviews_text", {"text": texts})
    np.testing.assert_array_equal(answer["logits"], expected)
    labels = [session.manifest.task.labels[index].encode() for index in expected.argmax(axis=1)]
    assert [label for (label,) in answer["label"]] == labels


def test_a_converted_export_of_ours_is_laid_out_too(random_run: Path, tmp_path: Path) -> None:
    export_run(ExportConfig(run=random_run, output_dir=tmp_path / "dense"))
    source = tmp_path / "dense" / "model.onnx"
    engine, triton = tmp_path / "engine", tmp_path / "triton"
    convert_file(ExportConfig(from_onnx=source, output_dir=engine, format="engine"))
    result = convert_file(
        ExportConfig(
            from_onnx=source,
            output_dir=triton,
            format="triton",
            model_name="r",
            triton_repository=str(triton),
        )
    )
    assert read_triton(triton).model == result.manifest == read_exported(engine)
    assert result.size_bytes == (engine / "model.onnx").stat().st_size
    session = open_session(engine, threads=1)
    inputs = session.collate(session.encode(TEXTS))
    found = Triton(triton).infer("r", inputs)["logits"]
    np.testing.assert_array_equal(found, session.run(inputs))


@contextlib.contextmanager
def nothing_left(output: Path):
    yield
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}.*"))


def test_a_file_of_others_does_not_say_enough(make_model: MakeModel, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "source")
    (directory / "manifest.json").unlink()
    config = ExportConfig(
        from_onnx=directory / "model.onnx", output_dir=tmp_path / "m", format="triton"
    )
    with (
        nothing_left(tmp_path / "m"),
        pytest.raises(ConfigurationError, match=r"needs manifest\.json .* use --format engine"),
    ):
        convert_file(config)


def test_nothing_is_left_of_a_graph_that_differs(random_run: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        run=random_run, output_dir=tmp_path / "m", format="triton", tolerance=1e-9
    )
    with nothing_left(tmp_path / "m"), pytest.raises(VerificationError):
        export_run(config)


def test_another_systems_library_is_refused(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Path(shutil.copyfile(native.library_path(), tmp_path / "libsmp_engine.dylib"))
    monkeypatch.setattr(native, "library_path", lambda: library)
    with pytest.raises(MachineError, match=r"libsmp_engine\.dylib .* on Linux"):
        make_repository(make_model, tmp_path / "m")


def test_info_says_what_it_is_and_a_session_refuses_it(
    repository: Path, engine: Path, random_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = describe(repository)
    assert facts["kind"] == "smp-triton-repository"
    densities = describe(random_run)["density_by_type"]
    assert facts["density_by_type"] == describe(engine)["density_by_type"] == densities
    print_description(facts)
    out = capsys.readouterr().out
    assert "reviews (tokens), reviews_text (texts)" in out
    assert "engine, int8" in out
    with pytest.raises(ArtifactError, match=r"it is a model repository, for `tritonserver"):
        open_session(repository)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_path_reads_back(make_model: MakeModel, tmp_path: Path, text: str) -> None:
    shutil.rmtree(tmp_path / "m", ignore_errors=True)
    directory = make_model(tmp_path / "m")
    lay_out(directory, read_exported(directory), name="m", repository=f"/{text}")
    (found,) = read_config(directory / "m").model_operations.op_library_filename
    assert found == str(PurePosixPath(f"/{text}") / "m/1" / native.library_path().name)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_label_reads_back(make_model: MakeModel, tmp_path: Path, labels: list[str]) -> None:
    shutil.rmtree(tmp_path / "m", ignore_errors=True)
    directory = make_repository(make_model, tmp_path / "m", labels=tuple(labels))
    (output,) = read_config(directory / "m").output
    content = (directory / "m" / output.label_filename).read_bytes().decode()
    *lines, end = content.split("\n")
    assert (lines, end) == ([label.replace("\n", " ") for label in labels], "")
    texts = np.array([[b"bad"], [b"good"]], dtype=np.object_)
    answer = Triton(directory).infer("m_text", {"text": texts})
    assert [label.decode() for (label,) in answer["label"]] == labels


def test_regression_has_no_labels(make_model: MakeModel, tmp_path: Path) -> None:
    directory = make_repository(make_model, tmp_path / "m", labels=(), metric="pearson")
    (output,) = read_config(directory / "m").output
    assert (list(output.dims), output.label_filename) == ([1], "")
    assert not (directory / "m" / "labels.txt").exists()


def test_the_weights_of_a_large_model_lie_beside_its_graph(
    make_model: MakeModel, tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "m")
    (directory / "model.onnx.data").write_bytes(b"weights")
    manifest = dataclasses.replace(read_exported(directory), data_sha256="0" * 64)
    lay_out(directory, manifest, name="m", repository="/models")
    assert (directory / "m/1/model.onnx.data").read_bytes() == b"weights"
    assert not (directory / "model.onnx.data").exists()


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ({}, ["[[b'0']] [[0.5 0.5]]", "[[0. 0.]]"]),
        ({"text_pair_column": "second"}, ["[[b'0']] [[0.5 0.5]]", "[[0. 0.]]"]),
        ({"labels": (), "metric": "pearson"}, ["[[0.]]", "[[0.]]"]),
        ({"max_length": 9}, ["[[b'0']] [[0.5 0.5]]", "[[0. 0.]]"]),
    ],
)
def test_the_code_of_the_readme_runs(
    options: dict[str, Any],
    printed: list[str],
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = make_repository(make_model, tmp_path / "m", **options)
    triton = Triton(directory)

    class Client:
        """Hands what the real client would send to the models, without HTTP."""

        def __init__(self, url: str) -> None:
            assert url == "localhost:8000"

        def infer(self, name: str, inputs: list[tritonclient.http.InferInput]) -> Any:
            found = triton.infer(name, {each.name(): sent(each) for each in inputs})
            return SimpleNamespace(as_numpy=found.__getitem__)

    monkeypatch.setattr(tritonclient.http, "InferenceServerClient", Client)
    monkeypatch.chdir(directory)
    readme = (directory / "README.md").read_text(encoding="utf-8")
    codes = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    lines = []
    for code in codes:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, {})
        lines.append(out.getvalue().strip())
    assert lines == printed
    _, (rows, length) = triton.runs["m"]
    longest = options.get("max_length", 32)
    assert rows == 1
    assert length <= longest
    assert length % 16 == 0 or longest % 16 != 0


def sent(tensor: tritonclient.http.InferInput) -> Any:
    data = tensor._get_binary_data()
    if tensor.datatype() == "BYTES":
        return deserialize_bytes_tensor(data).reshape(tensor.shape())
    assert tensor.datatype() == "INT64"
    return np.frombuffer(data, dtype=np.int64).reshape(tensor.shape())
