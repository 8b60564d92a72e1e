import os
import shutil
from collections.abc import Callable
from pathlib import Path

from serve.layout import ModelSource, exported_layout, read_layout
from serve.size import measure_size
from tests.serve.conftest import make_foreign


def test_sizes_are_those_of_the_files_and_of_a_real_zip(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "model")
    (directory / "nested").mkdir()
    (directory / "nested" / "zeros").write_bytes(bytes(100_000))
    size = measure_size(exported_layout(directory))
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert size.model_bytes == len((directory / "model.onnx").read_bytes())
    assert size.directory_bytes == sum(len(path.read_bytes()) for path in files)
    archive = Path(shutil.make_archive(str(tmp_path / "model"), "zip", directory))
    # A stream that cannot seek gets 16 bytes of sizes behind each file; directories get entries.
    assert abs(size.zipped_bytes - archive.stat().st_size) < 16 * len(files) + 200
    assert size.zipped_bytes < size.directory_bytes - 90_000


def test_weights_in_a_second_file_are_part_of_the_model(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "model")
    before = measure_size(exported_layout(directory))
    (directory / "model.onnx.data").write_bytes(bytes(50_000))
    size = measure_size(exported_layout(directory))
    assert size.model_bytes == before.model_bytes + 50_000
    assert size.directory_bytes == before.directory_bytes + 50_000


def test_files_of_1970_have_a_size_too(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model")
    before = measure_size(read_layout(ModelSource(directory)))
    os.utime(directory / "model.onnx", (0, 0))
    assert measure_size(read_layout(ModelSource(directory))) == before


def test_of_other_directories_only_what_the_graph_needs_counts(tmp_path: Path) -> None:
    directory = make_foreign(tmp_path / "model", config={}, onnx="onnx")
    (directory / "model.safetensors").write_bytes(bytes(50_000))
    size = measure_size(read_layout(ModelSource(directory)))
    needed = ("onnx/model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json")
    assert size.directory_bytes == sum((directory / name).stat().st_size for name in needed)
    assert size.model_bytes == (directory / "onnx/model.onnx").stat().st_size
