import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifacts.exported import read_exported
from pipeline.artifacts.triton import TritonManifest, read_triton, write_triton_manifest
from pipeline.errors import ArtifactError


@pytest.fixture
def manifest(make_model: Callable[..., Path], tmp_path: Path) -> TritonManifest:
    model = read_exported(make_model(tmp_path / "model", labels=("göed", "0")))
    return TritonManifest("reviews", "reviews_text", "/models/library.so", model)


def test_a_manifest_reads_back(manifest: TritonManifest, tmp_path: Path) -> None:
    write_triton_manifest(tmp_path, manifest)
    assert read_triton(tmp_path) == manifest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "smp-model"}, r"got 'smp-model'; it is a model directory"),
        ({"schema_version": 99}, "upgrade smp-pipeline"),
        ({"library": 7}, "library"),
    ],
)
def test_another_or_a_damaged_file_is_refused(
    changes: dict[str, object], message: str, manifest: TritonManifest, tmp_path: Path
) -> None:
    write_triton_manifest(tmp_path, manifest)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
    with pytest.raises(ArtifactError, match=message):
        read_triton(tmp_path)
